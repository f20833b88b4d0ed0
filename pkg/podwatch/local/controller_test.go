package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
)

// node is a node's pods: where they are, and which are captured.
type node struct {
	mu       sync.Mutex
	networks map[string]hostproc.NetNS
	captured map[string]podwatch.Pod
	fails    int // how many tries still fail
	tries    int
	settled  int
	gone     map[string]bool
}

func (n *node) Find(uid string) (hostproc.NetNS, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ns, ok := n.networks[uid]; ok {
		return ns, nil
	}
	return hostproc.NetNS{}, hostproc.ErrNoProcess
}

func (n *node) Enroll(_ context.Context, p podwatch.Pod) (uint64, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries++
	if n.fails > 0 {
		n.fails--
		return 0, errors.New("the kernel refuses")
	}
	n.captured[p.UID] = p
	return p.Cookie, nil
}

func (n *node) Remove(_ context.Context, uid string, gone bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.captured, uid)
	n.gone[uid] = gone
	return nil
}

func (n *node) Settle() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.settled++
	return nil
}

func (n *node) has(uid string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.captured[uid]
	return ok
}

type world struct {
	*testing.T
	api  *api
	node *node
	m    *podwatch.Manager
	c    *Controller
}

func start(t *testing.T, prepare func(w *world)) *world {
	w := &world{T: t, node: &node{networks: map[string]hostproc.NetNS{}, captured: map[string]podwatch.Pod{}, gone: map[string]bool{}}}
	log := slog.New(slog.DiscardHandler)
	var err error
	if w.m, err = podwatch.NewManager(podwatch.Options{Enroller: w.node, Logger: log}); err != nil {
		t.Fatal(err)
	}
	api, client := newAPI(t)
	w.api = api
	if prepare != nil {
		prepare(w)
	}
	if w.c, err = New(Options{API: client, Manager: w.m, Finder: w.node, Node: "n1", Rule: podwatch.Rule{Excluded: []string{"kube-system"}}, Logger: log}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return w
}

func (w *world) namespace(name, mode string) {
	labels := ""
	if mode != "" {
		labels = fmt.Sprintf(`,"labels":{"istio.io/dataplane-mode":%q}`, mode)
	}
	w.api.put("/api/v1/namespaces/"+name, fmt.Sprintf(`{"metadata":{"name":%q%s}}`, name, labels))
}

func path(namespace, name string) string { return "/api/v1/namespaces/" + namespace + "/pods/" + name }

// pod makes a pod that runs; its uid is its name.
func (w *world) pod(namespace, name, labels, ip string) {
	self, err := netns.Current()
	if err != nil {
		w.Fatal(err)
	}
	defer self.Close()
	cookie, err := self.Cookie()
	if err != nil {
		w.Fatal(err)
	}
	w.node.mu.Lock()
	w.node.networks[name] = hostproc.NetNS{Path: "/proc/self/ns/net", Cookie: cookie}
	w.node.mu.Unlock()
	w.api.put(path(namespace, name), fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q,"uid":%q,"labels":%s},
		"spec":{"nodeName":"n1","serviceAccountName":"sa","containers":[{"name":"app"}]},"status":{"phase":"Running","podIPs":[{"ip":%q}]}}`, name, namespace, name, labels, ip))
}

func (w *world) eventually(what string, ok func() bool) {
	w.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			w.Fatalf("waited in vain: %s", what)
		}
	}
}

const annotationName = "ambient.istio.io/redirection"

func TestRunningPodsAreEnrolledAndToldOf(t *testing.T) {
	w := start(t, func(w *world) {
		w.namespace("in", "ambient")
		w.namespace("out", "")
		w.namespace("kube-system", "ambient")
		w.pod("in", "a", `{}`, "10.0.0.1")
		w.pod("in", "b", `{"istio.io/dataplane-mode":"none"}`, "10.0.0.2")
		w.pod("out", "c", `{}`, "10.0.0.3")
		w.pod("out", "d", `{"istio.io/dataplane-mode":"ambient"}`, "10.0.0.4")
		w.pod("kube-system", "e", `{}`, "10.0.0.5")
	})
	<-w.m.Complete()
	for uid, want := range map[string]bool{"a": true, "b": false, "c": false, "d": true, "e": false} {
		if w.node.has(uid) != want {
			t.Errorf("%s captured: %v", uid, !want)
		}
	}
	if p := w.node.captured["a"]; p.ServiceAccount != "sa" || p.IPs[0] != netip.MustParseAddr("10.0.0.1") || p.Cookie == 0 {
		t.Errorf("%+v", p)
	}
	w.eventually("the annotation", func() bool { return w.api.annotation(path("in", "a"), annotationName) == "enabled" })
	w.eventually("settled", func() bool { w.node.mu.Lock(); defer w.node.mu.Unlock(); return w.node.settled == 1 })
	if got := w.api.annotation(path("out", "c"), annotationName); got != "" {
		t.Errorf("a pod outside has %q", got)
	}
	tries := w.node.tries
	w.namespace("in", "ambient") // nothing new
	w.pod("in", "f", `{}`, "10.0.0.6")
	w.eventually("a later pod", func() bool { return w.node.has("f") })
	if w.node.tries != tries+1 {
		t.Errorf("%d tries, want %d: a pod that is captured is left alone", w.node.tries, tries+1)
	}
}

func TestLabelChangesAreLive(t *testing.T) {
	w := start(t, func(w *world) { w.namespace("x", ""); w.pod("x", "a", `{}`, "10.0.0.1") })
	<-w.m.Complete()
	w.namespace("x", "ambient")
	w.eventually("captured", func() bool {
		return w.node.has("a") && w.api.annotation(path("x", "a"), annotationName) == "enabled"
	})
	w.api.cut() // the watch is taken up again
	w.pod("x", "a", `{"istio.io/dataplane-mode":"none"}`, "10.0.0.1")
	w.eventually("let go", func() bool { return !w.node.has("a") && w.api.annotation(path("x", "a"), annotationName) == "" })
	if w.node.gone["a"] {
		t.Error("it was taken for gone")
	}
	w.pod("x", "a", `{}`, "10.0.0.1")
	w.eventually("captured again", func() bool { return w.node.has("a") })
	w.api.remove(path("x", "a"))
	w.eventually("gone", func() bool { w.node.mu.Lock(); defer w.node.mu.Unlock(); return w.node.gone["a"] })
	if len(w.m.Pods()) != 0 {
		t.Errorf("still known: %v", w.m.Pods())
	}
}

func TestFailuresAreTriedAgainAndReported(t *testing.T) {
	w := start(t, func(w *world) {
		w.node.fails = 2
		w.namespace("x", "ambient")
		w.pod("x", "a", `{}`, "10.0.0.1")
	})
	<-w.m.Complete()
	w.eventually("captured in the end", func() bool { return w.node.has("a") })
	w.eventually("and says so", func() bool { return w.api.annotation(path("x", "a"), annotationName) == "enabled" })
	events := w.api.told()
	if len(events) != 1 || !strings.Contains(events[0], "EnrolmentFailed") || !strings.Contains(events[0], "the kernel refuses") {
		t.Errorf("events: %q", events)
	}
}

// What an earlier run knew and the API has no more is forgotten, and not before the
// API has told.
// A pod's author writes its annotations. One that names another pod's uid must not have that
// pod's network captured as its own; the kubelet's object for a static pod does name its uid there.
func TestNoPodNamesAnothersNetwork(t *testing.T) {
	const victim, static = "6a1ab5a1-7d0f-4bb4-9d8f-2c5d1f0f7f5e", "0123456789abcdef0123456789abcdef"
	at := map[string]hostproc.NetNS{victim: {Path: "/proc/self/ns/net", Cookie: 7}, static: {Path: "/proc/self/ns/net", Cookie: 8}}
	pod := func(name, annotations string) string {
		return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"in","uid":%q,"annotations":%s},
			"spec":{"nodeName":"n1","containers":[{"name":"app"}]},"status":{"phase":"Running","podIPs":[{"ip":"10.0.0.7"}]}}`, name, name, annotations)
	}
	w := start(t, func(w *world) {
		w.namespace("in", "ambient")
		maps.Copy(w.node.networks, at)
		for name, annotations := range map[string]string{
			"thief":   fmt.Sprintf(`{"kubernetes.io/config.hash":%q}`, victim),
			"twice":   fmt.Sprintf(`{"kubernetes.io/config.hash":%q,"kubernetes.io/config.mirror":%q}`, victim, victim),
			"other":   fmt.Sprintf(`{"kubernetes.io/config.hash":%q,"kubernetes.io/config.mirror":"x"}`, static),
			"statics": fmt.Sprintf(`{"kubernetes.io/config.hash":%q,"kubernetes.io/config.mirror":%q}`, static, static),
		} {
			w.api.put(path("in", name), pod(name, annotations))
		}
		w.pod("in", "honest", `{}`, "10.0.0.1")
	})
	w.eventually("the static pod and the other", func() bool { return w.node.has("statics") && w.node.has("honest") })
	w.eventually("all are looked at", func() bool {
		w.node.mu.Lock()
		defer w.node.mu.Unlock()
		return w.node.settled > 0 || w.node.tries > 4
	})
	for _, name := range []string{"thief", "twice", "other"} {
		if w.node.has(name) {
			t.Errorf("the pod %s has another's network captured", name)
		}
	}
}

func TestPodsOfAnEarlierRunAreForgotten(t *testing.T) {
	w := start(t, func(w *world) {
		w.namespace("x", "ambient")
		_, err := w.m.Put(t.Context(), podwatch.Pod{UID: "old", Namespace: "x", Name: "old", ServiceAccount: "sa", NetNS: "/proc/self/ns/net", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.9")}, Captured: true})
		if err != nil {
			t.Fatal(err)
		}
	})
	<-w.m.Complete()
	w.eventually("forgotten", func() bool { return !w.node.has("old") && len(w.m.Pods()) == 0 })
}

func TestCNIPluginsPodIsCapturedBeforeItsAddressIsKnown(t *testing.T) {
	w := start(t, func(w *world) { w.namespace("x", "ambient"); w.namespace("y", "") })
	<-w.m.Complete()
	w.api.put(path("x", "a"), `{"metadata":{"name":"a","namespace":"x","uid":"a"},"spec":{"nodeName":"n1","serviceAccountName":"sa","containers":[{"name":"app"}]},"status":{"phase":"Pending"}}`)
	box := podwatch.Sandbox{UID: "a", Namespace: "x", Name: "a", NetNS: "/proc/self/ns/net", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}}
	st, err := w.c.Add(t.Context(), box)
	if err != nil || st.State != podwatch.StateEnrolled || !w.node.has("a") {
		t.Fatalf("%+v %v", st, err)
	}
	w.eventually("the annotation", func() bool { return w.api.annotation(path("x", "a"), annotationName) == "enabled" })
	w.pod("x", "a", `{}`, "10.0.0.7") // the kubelet reports
	w.pod("y", "b", `{}`, "10.0.0.8")
	box.UID, box.Namespace, box.Name = "b", "y", "b"
	if st, err = w.c.Add(t.Context(), box); err != nil || st.State != podwatch.StatePassthrough {
		t.Errorf("%+v %v", st, err)
	}
	if w.node.tries != 1 {
		t.Errorf("%d tries, want 1", w.node.tries)
	}
	for name, bad := range map[string]podwatch.Sandbox{
		"not found":  {UID: "z", Namespace: "x", Name: "z", NetNS: "/proc/self/ns/net", IPs: box.IPs},
		"has uid b":  {UID: "other", Namespace: "y", Name: "b", NetNS: "/proc/self/ns/net", IPs: box.IPs},
		"no address": {UID: "a", Namespace: "x", Name: "a", NetNS: "/proc/self/ns/net"},
	} {
		if _, err := w.c.Add(t.Context(), bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	box = podwatch.Sandbox{UID: "a", Namespace: "x", Name: "a", NetNS: "/proc/self/ns/net"}
	if err := w.c.Remove(t.Context(), box); err != nil || w.node.has("a") {
		t.Errorf("after its end: %v", err)
	}
}
