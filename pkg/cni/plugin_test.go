package cni

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

const uid = "0a1b2c3d-1111-2222-3333-444455556666"

// agent answers the plugin.
type agent struct {
	mu      sync.Mutex
	added   []podwatch.Sandbox
	removed []podwatch.Sandbox
	err     error
}

func (a *agent) Add(_ context.Context, s podwatch.Sandbox) (podwatch.Status, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.added = append(a.added, s)
	return podwatch.Status{State: podwatch.StateEnrolled}, a.err
}

func (a *agent) Remove(_ context.Context, s podwatch.Sandbox) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removed = append(a.removed, s)
	return a.err
}

type nobody struct{}

func (nobody) Enroll(context.Context, podwatch.Pod) (uint64, error) { return 0, errors.New("refused") }
func (nobody) Remove(context.Context, string, bool) error           { return nil }
func (nobody) Settle() error                                        { return nil }

// serve starts an agent on a socket.
func serve(t *testing.T, socket string, a *agent) *podwatch.Manager {
	log := slog.New(slog.DiscardHandler)
	m, err := podwatch.NewManager(podwatch.Options{Enroller: nobody{}, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	s, err := podwatch.Listen(socket, m, log)
	if err != nil {
		t.Fatal(err)
	}
	s.HandleSandboxes(a)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

func call(dir, namespace string) *skel.CmdArgs {
	conf := map[string]any{
		"cniVersion": "1.0.0", "name": "net", "type": Type, "socket": filepath.Join(dir, "s"), "note": filepath.Join(dir, "note"), "credentials": filepath.Join(dir, "credentials"),
		"excludedNamespaces": []string{"kube-system", "istio-system"},
		"prevResult": map[string]any{
			"cniVersion": "1.0.0",
			"interfaces": []any{map[string]any{"name": "cni0"}, map[string]any{"name": "veth1"}, map[string]any{"name": "eth0", "sandbox": "/var/run/netns/x"}},
			"ips":        []any{map[string]any{"address": "10.0.0.5/24", "interface": 2}, map[string]any{"address": "fd00::5/64", "interface": 2}, map[string]any{"address": "10.0.0.1/24", "interface": 0}},
		},
	}
	b, _ := json.Marshal(conf)
	return &skel.CmdArgs{
		ContainerID: "c", Netns: "/var/run/netns/x", IfName: "eth0", StdinData: b,
		Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=p;K8S_POD_UID=" + uid + ";K8S_POD_INFRA_CONTAINER_ID=c",
	}
}

func TestPluginAsksTheAgent(t *testing.T) {
	dir := t.TempDir()
	a := &agent{}
	m := serve(t, filepath.Join(dir, "s"), a)
	var out strings.Builder
	p := Plugin{Out: &out, Log: io.Discard}
	if err := p.Add(call(dir, "shop")); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `"10.0.0.5/24"`) {
		t.Errorf("the result of the plugins before is not handed on: %s", &out)
	}
	want := podwatch.Sandbox{UID: uid, Namespace: "shop", Name: "p", NetNS: "/var/run/netns/x", IPs: []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")}}
	if len(a.added) != 1 || fmt.Sprint(a.added[0]) != fmt.Sprint(want) {
		t.Errorf("told %+v, want %+v", a.added, want)
	}
	if err := p.Add(call(dir, "kube-system")); err != nil || len(a.added) != 1 {
		t.Errorf("excluded namespace: %v, told %d", err, len(a.added))
	}
	if err := p.Check(call(dir, "shop")); err != nil {
		t.Errorf("check of a pod that is not known: %v", err)
	}
	_, _ = m.Put(t.Context(), podwatch.Pod{UID: uid, Namespace: "shop", Name: "p", ServiceAccount: "d", NetNS: "/x", IPs: want.IPs, Captured: true})
	if err := p.Check(call(dir, "shop")); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("check of a pod that failed: %v", err)
	}
	a.err = errors.New("the kernel refuses")
	if err := p.Add(call(dir, "shop")); err == nil || !strings.Contains(err.Error(), "the kernel refuses") || !strings.Contains(err.Error(), "shop/p") {
		t.Errorf("a failure holds the pod back: %v", err)
	}
	if err := p.Del(call(dir, "shop")); err != nil || len(a.removed) != 1 {
		t.Errorf("a failure does not hold the end back: %v", err)
	}
	lone := call(dir, "shop")
	lone.StdinData = []byte(strings.Replace(string(lone.StdinData), "prevResult", "nothing", 1))
	if err := p.Add(lone); err == nil || !strings.Contains(err.Error(), "must come after") {
		t.Errorf("first in the chain: %v", err)
	}
}

// With the agent down.
func TestPluginDecidesAlone(t *testing.T) {
	dir := t.TempDir()
	p := Plugin{Out: io.Discard, Log: io.Discard}
	add := func(namespace string) error { return p.Add(call(dir, namespace)) }
	if err := add("kube-system"); err != nil {
		t.Errorf("excluded: %v", err)
	}
	if err := add("shop"); err == nil || !strings.Contains(err.Error(), "agent is down") {
		t.Errorf("nothing known: %v", err)
	}
	i := Installer{Config: Config{Note: filepath.Join(dir, "note")}}
	if err := i.Note(map[string]map[string]string{"shop": {"istio.io/dataplane-mode": "ambient"}, "plain": nil}); err != nil {
		t.Fatal(err)
	}
	for namespace, held := range map[string]bool{"shop": true, "plain": false, "new": true} {
		if err := add(namespace); (err != nil) != held {
			t.Errorf("%s by the note: %v", namespace, err)
		}
	}
	// The API knows better than the note.
	labels := map[string]string{}
	api := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/pods/") {
			fmt.Fprintf(w, `{"metadata":{"name":"p","namespace":"plain","uid":%q,"labels":{%s}}}`, uid, labels["pod"])
			return
		}
		fmt.Fprintf(w, `{"metadata":{"name":"x","labels":{%s}}}`, labels["namespace"])
	}))
	defer api.Close()
	if err := writeJSON(filepath.Join(dir, "credentials"), kube.Config{Server: api.URL, CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: api.Certificate().Raw}), Token: "t"}); err != nil {
		t.Fatal(err)
	}
	if err := add("shop"); err != nil {
		t.Errorf("the API says that it is outside: %v", err)
	}
	labels["pod"] = `"istio.io/dataplane-mode":"ambient"`
	if err := add("plain"); err == nil {
		t.Error("the API says that the pod is in the mesh: it started")
	}
	labels["pod"], labels["namespace"] = `"istio.io/dataplane-mode":"none"`, `"istio.io/dataplane-mode":"ambient"`
	if err := add("shop"); err != nil {
		t.Errorf("the API says that the pod opted out: %v", err)
	}
	if err := p.Del(call(dir, "shop")); err != nil {
		t.Errorf("the end with the agent down: %v", err)
	}
}
