package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	labs "github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/test/capture"
)

func killCluster(mode string) string {
	return twoNodes + namespace("shop", mode) + echoPod("shop", "server", "n2") +
		loadPod("shop", "fresh", "n1", "--url", "tcp://server:9000", "--rate", "100", "--concurrency", "8", "--timeout", "3s") +
		loadPod("shop", "held", "n1", "--url", "tcp://server:9000", "--rate", "50", "--concurrency", "4", "--timeout", "3s", "--keep-alive")
}

// sent is what the load's connections carry.
const sent = "echo 0123456789 abcdefghijklmnopqrstuvwxyz"

// TestKilledUnderLoad kills the agents and the control plane while connections are
// made and used. To be refused is allowed; plaintext on the wire or a wrong answer
// never is.
func TestKilledUnderLoad(t *testing.T) {
	needRoot(t)
	build(t)
	l := newLab(t, killCluster("none"))
	both := []string{"shop/fresh", "shop/held"}
	// plain counts packets with the load's bytes, as seen where all of the
	// server's node passes.
	plain := func(during func()) (n int) {
		t.Helper()
		witness, err := capture.Start(l.node(t, "n2").NetNS)
		if err != nil {
			t.Fatal(err)
		}
		during()
		if err := witness.Stop(); err != nil {
			t.Fatal(err)
		}
		for _, p := range witness.Packets() {
			if bytes.Contains(p.Payload, []byte(sent)) {
				n++
			}
		}
		return n
	}
	answered := func(n int64) {
		t.Helper()
		for _, pod := range both {
			l.answersMore(t, pod, n)
		}
	}
	if plain(func() { answered(20) }) == 0 {
		t.Fatal("the witness does not see the bytes without the mesh either")
	}
	if err := os.WriteFile(filepath.Join(l.dir, "cluster.yaml"), []byte(killCluster("ambient")), 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pods join the mesh", func() bool {
		return !slices.ContainsFunc(l.view(t).Pods, func(p labs.PodView) bool { return !p.Enrolled })
	})
	// A connection older than the enrolment stays as it is; the new pod has none.
	l.run(t, "lab", "delete", "--name", l.name, "pod", "shop/held")
	eventually(t, "the namespace joins the mesh", func() bool { return plain(func() { answered(20) }) == 0 })
	kill := func(part string) { l.run(t, "lab", "kill", "--name", l.name, part) }
	start := func(part string) { l.run(t, "lab", "start", "--name", l.name, part) }
	if n := plain(func() {
		for _, agent := range []string{"agent/n1", "agent/n2"} {
			kill(agent)
			l.failsMore(t, "shop/fresh")
			start(agent)
			answered(50)
		}
		kill("control-plane")
		answered(50)
		start("control-plane")
		answered(50)
		// All at once; then without the control plane, from the last state.
		kill("control-plane")
		kill("agent/n2")
		kill("agent/n1")
		l.failsMore(t, "shop/fresh")
		start("agent/n1")
		start("agent/n2")
		answered(50)
		start("control-plane")
		answered(20)
	}); n > 0 {
		t.Errorf("%d packets with the application's bytes in plain text", n)
	}
	for _, pod := range both {
		p := l.load(t, pod)
		t.Logf("%s: %+v", pod, p)
		for kind := range p.Errors {
			if !slices.Contains([]string{"refused", "reset", "eof", "timeout"}, kind) {
				t.Errorf("%s: %s", pod, kind)
			}
		}
	}
}
