package agent

import (
	"context"
	"slices"
	"strings"
	"testing"
)

const label = "istio.io/dataplane-mode=ambient"

const strict = `
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// One cluster lives through it all: parts of it are steps, in their order.
func TestAgentOnTwoNodes(t *testing.T) {
	w := begin(t, "agent")
	for _, step := range []struct {
		name string
		run  func(w *world)
	}{
		{"a running namespace is enrolled live", enrolledLive},
		{"a pod is captured before its first process, and probes pass, under STRICT", firstMillisecond},
		{"an agent is replaced by the next version and back under traffic", replaced},
		{"without an agent what is in the mesh is held back, and nothing else", agentDown},
		{"an agent whose pod is deleted by force comes again, and leaves nothing open", deletedByForce},
		{"a node that boots says nothing in clear", reboot},
		{"each capability is needed, and no other", privileges},
		{"an agent that may not ask whether it is uninstalled lets no pod go", mayNotAsk},
		{"an uninstalled agent leaves nothing", uninstalled},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(&world{T: t, c: w.c, fairlead: w.fairlead}) }) {
			return
		}
	}
}

func enrolledLive(w *world) {
	w.apply(talker("shop/before", "n1"))
	w.until("it talks", func() bool { return w.lastSaid("shop/before") == "ok" })
	seen := w.listen(0)
	uid := w.of("shop/server", ".metadata.uid")
	out := w.load(func() { w.kubectl("label", "namespace", "shop", label) }, "--rate", "100", "--duration", "6s")
	if !strings.Contains(out, `"failed":0`) {
		w.Errorf("while it was labelled: %s", out)
	}
	for _, pod := range []string{"shop/server", "shop/client", "shop/before"} {
		w.until(pod+" says so", func() bool { return w.of(pod, annotation) == "enabled" })
	}
	if !seen() {
		w.Error("the capture saw nothing before the label: it proves nothing after")
	}
	seen = w.listen(0)
	if out := w.load(func() {}, "--rate", "100", "--duration", "2s"); !strings.Contains(out, `"failed":0`) {
		w.Errorf("in the mesh: %s", out)
	}
	if seen() {
		w.Error("said in clear although it is enrolled")
	}
	if got := w.of("shop/server", ".metadata.uid") + w.of("shop/server", ".status.containerStatuses[*].restartCount"); got != uid+"0" {
		w.Errorf("uid and restarts %s, want %s0", got, uid)
	}
	// And out again, live.
	w.kubectl("-n", "shop", "label", "pod", "before", "istio.io/dataplane-mode=none")
	w.until("it says nothing any more", func() bool { return w.of("shop/before", annotation) == "" })
	w.kubectl("-n", "shop", "delete", "pod", "before")
}

func firstMillisecond(w *world) {
	w.apply(strict)
	w.apply(talker("plain/outside", "n1"))
	w.until("plaintext is refused", func() bool {
		return strings.HasPrefix(w.lastSaid("plain/outside"), "broken") || strings.HasPrefix(w.lastSaid("plain/outside"), "refused")
	})
	seen := w.listen(1)
	w.apply(talker("shop/early", "n1"))
	w.until("it talks", func() bool { return w.lastSaid("shop/early") == "ok" })
	if said := w.said("shop/early"); len(said) != 1 {
		w.Errorf("the first connection was not captured: %q", said)
	}
	w.kubectl("-n", "plain", "delete", "pod", "outside")
	_ = seen()
	seen = w.listen(1)
	// Probes every second, for some.
	w.until("probes go on", func() bool { return probes(w) >= 5 })
	if got := w.of("shop/server", ".status.containerStatuses[*].restartCount") + w.of("shop/server", ".status.containerStatuses[*].ready"); got != "0true" {
		w.Errorf("probes under STRICT: restarts and readiness %s", got)
	}
	if seen() {
		w.Error("said in clear")
	}
}

var first = -1

// probes counts those that the server's agent has seen since the first call.
func probes(w *world) int {
	w.Helper()
	ip := w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "--field-selector", "spec.nodeName=n2", "-o", "jsonpath={.items[0].status.podIP}")
	out, err := w.c.Nodes[1].Run(w.Context(), "curl", "-s", "http://"+ip+":15020/metrics")
	if err != nil {
		w.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, `fairlead_bpf_verdicts_total{hook="connect",verdict="pass_probe"} `); ok {
			for _, d := range strings.TrimSpace(rest) {
				n = 10*n + int(d-'0')
			}
		}
	}
	if first < 0 {
		first = n
	}
	return n - first
}

// The agents' pods, by name.
func (w *world) agentPods() []string {
	w.Helper()
	return strings.Fields(w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "-o", "jsonpath={.items[*].metadata.name}"))
}

// held waits until each of the pods' loads had 20 more answers, and wants no more
// failures than failed tells, which it brings up to date. Their connections are
// without a tunnel and kept: one that breaks shows.
func (w *world) held(when string, failed map[string]int64) {
	w.Helper()
	for _, pod := range holding {
		before := w.lastLoad(pod)
		w.until(pod+" goes on "+when, func() bool { return w.lastLoad(pod).OK >= before.OK+20 })
		now := w.lastLoad(pod)
		if known, asked := failed[pod]; asked && now.Failed > known {
			w.Errorf("%s: long connections of %s failed: %+v", when, pod, now)
		}
		failed[pod] = now.Failed
	}
}

// The next version's maps in the kernel have another layout.
func replaced(w *world) {
	w.apply(held)
	failed := map[string]int64{}
	w.held("before", failed)
	// A capture holds so many packets: each replacement has its own, begun before the last
	// one's ends.
	seen := make([]func() bool, len(w.c.Nodes))
	again := func(more bool) {
		for i, n := range w.c.Nodes {
			before := seen[i]
			if seen[i] = nil; more {
				seen[i] = w.listen(i)
			}
			if before != nil && before() {
				w.Errorf("said in clear on %s while agents were replaced", n.Name)
			}
		}
	}
	again(true)
	out := w.load(func() {
		for _, to := range []struct{ tag, layout string }{{"next", "v2"}, {"n", "v1"}, {"next", "v2"}, {"n", "v1"}} {
			old := w.agentPods()
			w.kubectl("-n", "istio-system", "set", "image", "daemonset/ztunnel", "istio-proxy=localhost/fairlead/node-agent:"+to.tag)
			w.kubectl("-n", "istio-system", "rollout", "status", "daemonset/ztunnel", "--timeout=100s")
			w.until("the pods of the agents before are gone", func() bool {
				return !slices.ContainsFunc(w.agentPods(), func(name string) bool { return slices.Contains(old, name) })
			})
			w.held("past the agents of before "+to.tag, failed)
			for _, n := range w.c.Nodes {
				w.until("nothing but "+to.layout+" is pinned on "+n.Name, func() bool {
					out, err := n.Run(w.Context(), "ls", "/sys/fs/bpf/fairlead", "/sys/fs/bpf/fairlead/default")
					return err == nil && strings.Join(strings.Fields(out), " ") == "/sys/fs/bpf/fairlead: default /sys/fs/bpf/fairlead/default: links shared "+to.layout
				})
			}
			again(true)
		}
		again(false)
	}, "--rate", "100", "--duration", "110s")
	w.Logf("%s", out)
	if !strings.Contains(out, `"failed":0`) {
		w.Errorf("while agents were replaced: %s\n%s", out, w.agents())
	}
	for _, pod := range holding {
		namespace, name, _ := strings.Cut(pod, "/")
		w.kubectl("-n", namespace, "delete", "pod", name)
	}
	w.kubectl("delete", "peerauthentication,service,pod", "-A", "-l", "for=held")
	if said := w.said("shop/early"); len(said) != 1 {
		w.Errorf("a pod heard of it: %q", said)
	}
}

// away has no agent run on any node, without its DaemonSet being deleted.
const away = `{"spec":{"template":{"spec":{"nodeSelector":{"nowhere":"x"}}}}}`

// gone ends all agents.
func (w *world) gone() {
	w.Helper()
	w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "-p", away)
	w.until("no agent runs", func() bool {
		return w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "-o", "name") == ""
	})
}

// back starts agents again.
func (w *world) back() {
	w.Helper()
	w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "--type=json", "-p", `[{"op":"remove","path":"/spec/template/spec/nodeSelector/nowhere"}]`)
}

func agentDown(w *world) {
	// Somebody mounts the BPF file system anew before: what is attached outlives the agent all the same.
	n1 := w.c.Nodes[0]
	if out, err := n1.Run(w.Context(), "sh", "-ec", "umount /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf"); err != nil {
		w.Fatal(err, out)
	}
	w.until("the agent pins what it has attached again", func() bool {
		out, err := n1.Run(w.Context(), "ls", "/sys/fs/bpf/fairlead/default/links")
		return err == nil && strings.Contains(out, "link_connect4")
	})
	w.gone()
	w.until("what is enrolled is refused", func() bool { return strings.HasPrefix(w.lastSaid("shop/early"), "refused") })
	seen := w.listen(0)
	w.apply(talker("shop/late", "n1") + "---" + talker("plain/late", "n1") + "---" + talker("kube-system/late", "n1"))
	// Its own label says so, which only the API knows.
	w.apply(strings.Replace(talker("plain/own", "n1"), "namespace: plain", "namespace: plain, labels: {istio.io/dataplane-mode: ambient}", 1))
	for _, pod := range []string{"plain/late", "kube-system/late"} {
		w.until(pod+" starts", func() bool { return w.of(pod, ".status.phase") == "Running" })
	}
	for _, pod := range []string{"shop/late", "plain/own"} {
		namespace, name, _ := strings.Cut(pod, "/")
		w.until("the kubelet says why a pod is held back", func() bool {
			return strings.Contains(w.kubectl("-n", namespace, "get", "events", "--field-selector", "involvedObject.name="+name), "node agent is down")
		})
		if got := w.of(pod, ".status.phase"); got != "Pending" {
			w.Errorf("%s is %s without an agent", pod, got)
		}
	}
	w.kubectl("-n", "plain", "delete", "pod", "late")
	w.kubectl("-n", "kube-system", "delete", "pod", "late")
	_ = seen() // theirs
	seen = w.listen(0)
	w.back()
	w.until("it starts when the agent is there", func() bool { return w.lastSaid("shop/late") == "ok" })
	w.until("as does the one with a label of its own", func() bool { return w.lastSaid("plain/own") == "ok" })
	w.kubectl("-n", "plain", "delete", "pod", "own")
	w.until("and what ran talks again", func() bool { return w.lastSaid("shop/early") == "ok" })
	if said := w.said("shop/late"); len(said) != 1 {
		w.Errorf("the first connection was not captured: %q", said)
	}
	if seen() {
		w.Error("said in clear")
	}
}

// ofNode are the names of the agents on n1.
func (w *world) ofNode() string {
	return w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "--field-selector", "spec.nodeName=n1", "-o", "jsonpath={.items[*].metadata.name}")
}

// owner is the one that stays: what came before may still be replaced by it.
func (w *world) owner() (agent string) {
	w.kubectl("-n", "istio-system", "rollout", "status", "daemonset/ztunnel", "--timeout=100s")
	w.until("one agent is on the node", func() bool {
		agent = w.ofNode()
		return agent != "" && !strings.Contains(agent, " ")
	})
	return agent
}

// Its token ends with the pod's object, which is no sign that it was uninstalled.
func deletedByForce(w *world) {
	seen := w.listen(0)
	before := w.owner()
	w.kubectl("-n", "istio-system", "delete", "pod", before, "--force", "--grace-period=0")
	w.until("another is there", func() bool { return w.ofNode() != before })
	w.kubectl("-n", "istio-system", "rollout", "status", "daemonset/ztunnel", "--timeout=100s")
	w.until("what is enrolled talks", func() bool { return w.lastSaid("shop/early") == "ok" })
	if out, err := w.c.Nodes[0].Run(w.Context(), "grep", "-c", "fairlead-cni", "/etc/cni/net.d/10-bridge.conflist"); err != nil {
		w.Errorf("the CNI plugin was taken off: %s %v", out, err)
	}
	if seen() {
		w.Error("said in clear")
	}
}

// elsewhere has no agent run on n1.
const elsewhere = `{"spec":{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
{"matchExpressions":[{"key":"kubernetes.io/hostname","operator":"NotIn","values":["n1"]}]}]}}}}}}}`

// A node loses power and boots with pods on it that talk at once. One of them needs no
// more for it than its network: no name, and no service's address. The agent comes late.
func reboot(w *world) {
	n := w.c.Nodes[0]
	w.apply(strings.Replace(talker("shop/direct", "n1"), "server.shop:9000", w.of("shop/server", ".status.podIP")+":9000", 1))
	w.until("it talks", func() bool { return w.lastSaid("shop/direct") == "ok" })
	seen := w.listen(0)
	n.Kill()
	w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "-p", elsewhere)
	w.until("its agent is not to run", func() bool {
		return w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "--field-selector", "spec.nodeName=n1", "-o", "jsonpath={.items[*].metadata.deletionTimestamp}") != ""
	})
	if err := n.Start(); err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		w.Fatal(err)
	}
	w.until("the kubelet says why a pod is held back", func() bool {
		if w.of("shop/direct", ".status.containerStatuses[*].restartCount") != "0" {
			w.Error("a pod of the mesh was started without an agent")
			return true
		}
		return strings.Contains(w.kubectl("-n", "shop", "get", "events", "--field-selector", "involvedObject.name=direct"), "node agent is down")
	})
	w.everywhere()
	for _, pod := range []string{"shop/early", "shop/direct"} {
		w.until(pod+" is started again", func() bool { return w.of(pod, ".status.containerStatuses[*].restartCount") == "1" })
		// Certificates do not survive a boot, and the control plane may be on this node: its
		// first connections may be refused, or wait in vain.
		w.until("and talks", func() bool { return w.lastSaid(pod) == "ok" })
		// What it said since: the log is the new container's.
		for i, line := range w.said(pod) {
			if line != "ok" && !strings.HasPrefix(line, "refused") && !strings.HasPrefix(line, "broken") {
				w.Errorf("%s, connection %d after the boot: %q", pod, i, line)
			}
		}
	}
	if seen() {
		w.Error("said in clear while the node booted")
	}
	w.kubectl("-n", "shop", "delete", "pod", "direct")
}

// Without its right to ask, an agent cannot tell an end from the end. No other comes after it
// here: one to which it gives the node would know as little, and would not have to.
func mayNotAsk(w *world) {
	role := w.kubectl("-n", "istio-system", "get", "role", "ztunnel", "-o", "json")
	w.kubectl("-n", "istio-system", "delete", "role", "ztunnel")
	agent := w.owner()
	seen := w.listen(0)
	ctx, cancel := context.WithCancel(w.Context())
	defer cancel()
	last := make(chan string, 1)
	go func() {
		out, _ := w.c.Kubectl(ctx, "-n", "istio-system", "logs", "-f", agent, "--since=1s") // ends with the container
		last <- out
	}()
	w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "-p", elsewhere)
	if said := <-last; !strings.Contains(said, "node-agent uninstall") {
		w.Errorf("what to do is not said:\n%s", said)
	}
	if out, err := w.c.Nodes[0].Run(w.Context(), "grep", "-c", "fairlead-cni", "/etc/cni/net.d/10-bridge.conflist"); err != nil {
		w.Errorf("the CNI plugin was taken off: %s %v", out, err)
	}
	if _, err := w.c.KubectlInput(w.Context(), role, "create", "-f-"); err != nil {
		w.Fatal(err)
	}
	w.everywhere()
	w.until("what is enrolled talks", func() bool { return w.lastSaid("shop/early") == "ok" })
	if seen() {
		w.Error("said in clear")
	}
}

// everywhere takes elsewhere back, and waits for the agents.
func (w *world) everywhere() {
	w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "--type=json", "-p", `[{"op":"remove","path":"/spec/template/spec/affinity"}]`)
	w.kubectl("-n", "istio-system", "rollout", "status", "daemonset/ztunnel", "--timeout=100s")
}

// uninstalled deletes in the order of those who do not wait: the right to ask is gone
// when the agents are told to end.
func uninstalled(w *world) {
	w.kubectl("-n", "istio-system", "delete", "daemonset/ztunnel", "role/ztunnel", "rolebinding/ztunnel", "serviceaccount/ztunnel",
		"rolebinding/fairlead-cni", "serviceaccount/fairlead-cni", "--wait=false")
	w.kubectl("delete", "clusterrolebinding/ztunnel-istio-system", "clusterrole/ztunnel-istio-system")
	w.until("the agents are gone", func() bool {
		return w.kubectl("-n", "istio-system", "get", "pods", "-l", "app=ztunnel", "-o", "name") == ""
	})
	for _, n := range w.c.Nodes {
		out, err := n.Run(w.Context(), "sh", "-ec", `find /sys/fs/bpf /run/fairlead /var/lib/fairlead /opt/cni/bin -mindepth 1 | grep -i -e fairlead/ -e fairlead-cni || true
grep -l fairlead /etc/cni/net.d/* || true
for ns in /run/netns/*; do nsenter --net=$ns sh -c 'ip rule; ip -6 rule' | grep 'lookup 100' || true; done`)
		if err != nil {
			w.Fatal(err)
		}
		if out != "" {
			w.Errorf("left on %s:\n%s", n.Name, out)
		}
	}
	// Their annotations stay: the right to write them has gone, too.
	w.kubectl("-n", "istio-system", "delete", "peerauthentication", "--all")
	if out := w.load(func() {}, "--rate", "50", "--duration", "1s"); !strings.Contains(out, `"failed":0`) {
		w.Errorf("plain again: %s", out)
	}
	w.apply(talker("shop/after", "n1"))
	w.until("new pods start", func() bool { return w.lastSaid("shop/after") == "ok" })
}
