package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func namespaceYAML(labels string) string {
	return "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: default, labels: {" + labels + "}}\n"
}

// log is what a part of the lab wrote.
func (r *running) log(what string) string {
	text, err := os.ReadFile(LogFile(r.Name, what))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

// derived is a pod as the control plane sees it.
func (r *running) derived(key string) corev1.Pod {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.dir, ".fairlead/objects", "pod_"+strings.ReplaceAll(key, "/", "_")+".yaml"))
	if err != nil {
		r.t.Fatal(err)
	}
	var p corev1.Pod
	if err := yaml.Unmarshal(text, &p); err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *running) find(name string) PodView {
	p, err := r.Find(r.t.Context(), name)
	if err != nil {
		return PodView{}
	}
	return p
}

func TestPodsJoinAndLeaveTheMesh(t *testing.T) {
	r := start(t, "join", map[string]string{
		"nodes.yaml": "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: n2, labels: {fairlead.dev/agent: none}}\n",
		"ns.yaml":    namespaceYAML("istio.io/dataplane-mode: ambient"),
		"app.yaml": podYAML("in", "n1", "serviceAccountName: me\n  containers: [{name: app, image: echo, readinessProbe: {tcpSocket: {port: 8080}}}]") +
			strings.Replace(podYAML("out", "n1", sleeper), "labels: {app: out}", "labels: {istio.io/dataplane-mode: none}, annotations: {ambient.istio.io/redirection: enabled}", 1) +
			podYAML("elsewhere", "n2", sleeper),
	}, func(o *Options) { o.NoMesh, o.Binaries = false, fakeBinaries(t) })

	// Captured before its first process, with all that the agent needs.
	in := r.find("in")
	want := "enrol default/in sa=me ips=2 if=" + in.HostInterface + " probes=[8080] processes=0"
	if log := r.log("agent/n1"); !strings.Contains(log, want) {
		t.Errorf("the agent was not told %q:\n%s", want, log)
	}
	if !in.Captured || !in.Enrolled || r.derived("default/in").Annotations[redirectionAnnotation] != redirectionEnabled {
		t.Errorf("the captured pod: %+v, annotations %v", in, r.derived("default/in").Annotations)
	}
	for _, name := range []string{"out", "elsewhere"} {
		if p := r.find(name); p.Captured || p.Enrolled || r.derived("default/" + name).Annotations[redirectionAnnotation] != "" {
			t.Errorf("pod %s: %+v, annotations %v", name, p, r.derived("default/"+name).Annotations)
		}
	}

	// Its label takes it out: first it is announced, then the agent lets go, while
	// the process goes on.
	r.write("app2.yaml", podYAML("other", "n1", sleeper))
	app, err := os.ReadFile(filepath.Join(r.dir, "app.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r.write("app.yaml", strings.Replace(string(app), "labels: {app: in}", "labels: {app: in, istio.io/dataplane-mode: none}", 1))
	r.until("the announcement is withdrawn while it is captured", func(View) bool {
		return r.derived("default/in").Annotations[redirectionAnnotation] == "" && r.find("in").Enrolled
	})
	r.until("it is out", func(View) bool { return !r.find("in").Enrolled })
	if !strings.Contains(r.log("agent/n1"), "remove "+in.UID+" gone=false") {
		t.Errorf("the agent was not told:\n%s", r.log("agent/n1"))
	}
	r.write("app.yaml", string(app))
	r.until("it is in again", func(View) bool {
		return r.find("in").Enrolled && r.derived("default/in").Annotations[redirectionAnnotation] == redirectionEnabled
	})
	if now := r.find("in"); now.UID != in.UID || now.Containers[0].PID != in.Containers[0].PID {
		t.Errorf("joining and leaving restarted the pod: %+v, then %+v", in, now)
	}

	// A dead agent holds new captured pods; once it is back it hears of all.
	if err := r.Kill(t.Context(), "agent/n1", false); err != nil {
		t.Fatal(err)
	}
	r.write("late.yaml", podYAML("late", "n1", sleeper))
	r.until("the late pod waits", func(View) bool { p := r.find("late"); return p.NetNS != "" && strings.Contains(p.Reason, "agent at") })
	if p := r.find("late"); p.Containers[0].PID != 0 {
		t.Errorf("a pod that could not be captured was started: %+v", p)
	}
	if err := os.Remove(filepath.Join(r.dir, "app2.yaml")); err != nil {
		t.Fatal(err)
	}
	r.until("the other pod is gone", func(View) bool { return r.find("other").UID == "" })
	if err := r.Start(t.Context(), "agent/n1"); err != nil {
		t.Fatal(err)
	}
	r.until("the late pod is in", func(v View) bool { return r.find("late").Enrolled && v.Ready })

	// A mesh's process that dies by itself comes back by itself.
	v := r.until("ready", func(v View) bool { return v.Ready })
	r.must("node/n1", "kill", "-9", fmt.Sprint(v.Nodes[0].Agent.PID))
	r.until("a new agent", func(n View) bool { return n.Ready && n.Nodes[0].Agent.PID != v.Nodes[0].Agent.PID })

	attach(t, v)
	r.stop()
	if left := traces(t, r.Name, r.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// attach checks that what another mesh's agent needs is there, on the node that
// has none.
func attach(t *testing.T, v View) {
	t.Helper()
	i := slices.IndexFunc(v.Nodes, func(n NodeView) bool { return n.Name == "n2" })
	n := v.Nodes[i]
	if n.Agent != nil || v.Nodes[0].Agent == nil {
		t.Errorf("agents: n1 %v, n2 %v", v.Nodes[0].Agent, n.Agent)
	}
	for _, file := range []string{n.NetNS, n.TokenFile, v.ControlPlane.RootCert} {
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if v.ControlPlane.XDSAddress != "172.18.0.2:15012" {
		t.Errorf("xDS address %q", v.ControlPlane.XDSAddress)
	}
	text, err := os.ReadFile(n.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(place{v.Name}.tokenKey())
	if err != nil {
		t.Fatal(err)
	}
	public, err := jwt.ParseECPublicKeyFromPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Parse(string(text), func(*jwt.Token) (any, error) { return public, nil },
		jwt.WithAudience("istio-ca"), jwt.WithIssuer("fairlead-lab"), jwt.WithExpirationRequired(), jwt.WithValidMethods([]string{"ES256"}))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(token.Claims)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"sub":"system:serviceaccount:istio-system:ztunnel"`, `"node":{"name":"n2"}`, `"pod":{"name":"ztunnel-n2"`} {
		if !strings.Contains(string(claims), want) {
			t.Errorf("the token holds no %s: %s", want, claims)
		}
	}
	if until, err := token.Claims.GetExpirationTime(); err != nil || time.Until(until.Time) < time.Hour {
		t.Errorf("the token ends %v (%v)", until, err)
	}
}
