package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/capture"
)

// outcome is what test/escape prints.
type outcome struct {
	Attempts, Answered, Refused, TimedOut, Other, Packets int
	Errors                                                []string
}

// TestNothingEscapes tries every way out of a meshed pod with its agent up, dead
// and started again, in both families. The witness listens on the other node,
// behind the guard: it must see no SYN to the server's port and none of the
// application's bytes. A control run from a pod outside the mesh, with the same
// attempts, must see both.
func TestNothingEscapes(t *testing.T) {
	needRoot(t)
	build(t)
	dir := t.TempDir()
	programs := map[string]string{}
	for _, name := range []string{"semantics", "escape"} {
		programs[name] = filepath.Join(dir, name)
		if out, err := exec.Command("go", "build", "-o", programs[name], "../"+name).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	flavours, err := exec.Command(programs["escape"], "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	l := newLab(t, semanticsCluster(programs["semantics"]))
	e := &escape{lab: l, program: programs["escape"], flavours: strings.Fields(string(flavours))}

	t.Run("control", func(t *testing.T) { e.control(t) })
	t.Run("agent up", func(t *testing.T) { e.meshed(t, true) })
	l.run(t, "lab", "kill", "--name", l.name, "agent/n1")
	t.Run("agent dead", func(t *testing.T) { e.meshed(t, false) })
	l.run(t, "lab", "start", "--name", l.name, "agent/n1")
	t.Run("agent started again", func(t *testing.T) { e.meshed(t, true) })
}

type escape struct {
	lab      *lab
	program  string
	flavours []string
}

// flavoursOf leaves the nested namespace out for IPv6: the pod itself answers for
// the shared address, neighbour discovery fails, and no SYN is sent at all. Those that
// IPv6 alone has begin with six.
func (e *escape) flavoursOf(family int) []string {
	return slices.DeleteFunc(slices.Clone(e.flavours), func(f string) bool {
		return family == 0 && strings.HasPrefix(f, "six-") || family == 1 && f == "nested"
	})
}

const attemptsEach = 3

// attempt runs one flavour and returns what came of it, and what the other node saw.
func (e *escape) attempt(t *testing.T, namespace, flavour string, family int, marker string) (outcome, *capture.Capture) {
	t.Helper()
	witness, err := capture.Start(e.lab.node(t, "n2").NetNS)
	if err != nil {
		t.Fatal(err)
	}
	ip := e.lab.podIP(t, namespace+"/cross", family)
	address := ip + ":7000"
	if family == 1 {
		address = "[" + ip + "]:7000"
	}
	out := e.lab.run(t, "lab", "exec", "--name", e.lab.name, namespace+"/client", "--",
		e.program, flavour, address, fmt.Sprint(attemptsEach), marker)
	if err := witness.Stop(); err != nil {
		t.Fatal(err)
	}
	var o outcome
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if o.Other > 0 && flavour != "nested" {
		t.Errorf("%s: unexpected errors: %v", flavour, o.Errors)
	}
	return o, witness
}

// seen counts SYNs to the server's port, and to that of captured connections, and packets with the marker.
func seen(c *capture.Capture, marker string) (syns, marked int) {
	for _, p := range c.Packets() {
		if p.SYN && !p.ACK && (p.Destination.Port() == 7000 || p.Destination.Port() == 15001) {
			syns++
		}
		if bytes.Contains(p.Payload, []byte(marker)) {
			marked++
		}
	}
	return syns, marked
}

// control: without the mesh, the same attempts do get out, and the witness sees them.
func (e *escape) control(t *testing.T) {
	for family := range 2 {
		for _, flavour := range e.flavoursOf(family) {
			marker := fmt.Sprintf("control-%s-%d", flavour, family)
			o, witness := e.attempt(t, "plain", flavour, family, marker)
			// A nested namespace shares the pod's address: the answer goes to the pod,
			// so its SYNs are all there is to see. Segment routing is for those who accept it.
			silent := flavour == "nested" || flavour == "six-segments"
			if syns, marked := seen(witness, marker); syns < max(attemptsEach, o.Packets) || marked == 0 && !silent {
				t.Errorf("%s, family %d: the witness saw %d SYNs and the bytes %d times: it would miss an escape", flavour, family, syns, marked)
			}
		}
	}
}

func (e *escape) meshed(t *testing.T, agentUp bool) {
	for family := range 2 {
		for _, flavour := range e.flavoursOf(family) {
			marker := fmt.Sprintf("secret-%s-%d-%v", flavour, family, agentUp)
			before := 0.0
			if agentUp {
				before = e.lab.guardDrops(t, "n1")
			}
			o, witness := e.attempt(t, "meshed", flavour, family, marker)
			t.Logf("%s, family %d: %+v", flavour, family, o)
			syns, marked := seen(witness, marker)
			if syns > 0 || marked > 0 {
				t.Errorf("%s, family %d: %d SYNs and %d packets with the application's bytes left the pod uncaptured", flavour, family, syns, marked)
			}
			if !agentUp && o.Answered > 0 {
				t.Errorf("%s, family %d: %d attempts were answered without an agent", flavour, family, o.Answered)
			}
			if agentUp && o.Packets > 0 {
				if drops := e.lab.guardDrops(t, "n1") - before; drops < float64(o.Packets) {
					t.Errorf("%s, family %d: %d packets were sent by hand, the guard counted %v", flavour, family, o.Packets, drops)
				}
			}
		}
	}
}

// guardDrops is what a node's guard has dropped so far.
func (l *lab) guardDrops(t *testing.T, node string) float64 {
	t.Helper()
	out := l.run(t, "lab", "exec", "--name", l.name, "node/"+node, "--",
		"curl", "-sS", "-m", "10", "--retry", "40", "--retry-connrefused", "--retry-delay", "1", "http://localhost:15020/metrics") // it may just have been started
	total := 0.0
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "fairlead_bpf_verdicts_total{") && strings.Contains(line, `hook="guard"`) && strings.Contains(line, `verdict="drop`) {
			v, _ := sum(line, "fairlead_bpf_verdicts_total")
			total += v
		}
	}
	return total
}
