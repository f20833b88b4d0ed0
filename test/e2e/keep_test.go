package e2e

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// TestAgentKeepsItsNode has a next agent that is slower than the owner waits for, and
// somebody who wipes the BPF file system: no connection fails, none goes around the
// agent, and all stays refused when the owner is killed.
func TestAgentKeepsItsNode(t *testing.T) {
	needRoot(t)
	build(t)
	l := newLab(t, handoverCluster)
	both := []string{"shop/fresh", "shop/asked"}
	began := map[string]int64{}
	for _, pod := range both {
		l.answersMore(t, pod, 50)
		began[pod] = l.load(t, pod).Failed
	}
	served := func(when string) {
		t.Helper()
		for _, pod := range both {
			l.answersMore(t, pod, 50)
			if p := l.load(t, pod); p.Failed > began[pod] {
				t.Errorf("%s: connections of %s failed: %+v", when, pod, p)
			}
		}
	}
	owner, said := l.agentBeside(t, "n1", 16, "--handover-patience", "1s")
	eventually(t, "it owns the node", func() bool { return strings.Contains(said(), "this agent owns the node") })

	pins := filepath.Join("/sys/fs/bpf/fairlead", l.node(t, "n1").Agent.Instance)
	there := func() map[string]bool {
		out := map[string]bool{}
		files, err := filepath.Glob(filepath.Join(pins, "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			out[f] = true
		}
		return out
	}
	before := there()

	// It waits for a control plane that is not there, longer than the owner waits for it.
	late, lateSaid := l.agentBeside(t, "n1", 17, "--xds-address", "127.0.0.1:1")
	eventually(t, "the owner goes on", func() bool { return strings.Contains(said(), "the next agent has failed: this one goes on") })
	served("while the late agent gets ready")
	tooLate := time.AfterFunc(2*time.Minute, func() { _ = late.Process.Kill() }) // one that takes the node does not end
	err := late.Wait()
	tooLate.Stop()
	if err == nil {
		t.Error("the late agent ends as if nothing were wrong")
	}
	if got := lateSaid(); !strings.Contains(got, "the agent before keeps the node: it has waited 1s") || strings.Contains(got, "this agent owns the node") {
		t.Errorf("the late agent:\n%s", notRecords(got))
	}
	served("after the late agent")

	// At once, so that the agent mends it once.
	if err := errors.Join(os.Rename(pins, pins+"-wiped"), os.RemoveAll(pins+"-wiped")); err != nil {
		t.Fatal(err)
	}
	served("with its pins wiped")
	eventually(t, "all is pinned again", func() bool { return maps.Equal(there(), before) })
	eventually(t, "it is said", func() bool { return strings.Contains(said(), "was wiped or mounted anew") })
	if page := l.run(t, "lab", "exec", "--name", l.name, "node/n1", "--", "curl", "-sS", "-m", "10", "http://localhost:16020/metrics"); !strings.Contains(page, "\nfairlead_pins_mended_total "+strconv.Itoa(len(before))+"\n") {
		t.Errorf("no %d in fairlead_pins_mended_total", len(before))
	}
	served("pinned again")

	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait()
	for from, to := range map[string]string{"shop/inside": "outside/stranger", "outside/stranger": "shop/inside"} {
		ns, err := netns.Open(l.pod(t, from).NetNS)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		if c, err := dialFrom(ns, l.podIP(t, to, 0)+":9000", 10*time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("from %s to %s without an agent: %v, %v, want it refused", from, to, c, err)
		}
	}
}
