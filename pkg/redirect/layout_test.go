package redirect

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// otherAgent is an agent in a process of its own, of the version with the other layout.
type otherAgent struct {
	n    *node
	cmd  *exec.Cmd
	in   *os.File // orders
	out  *bufio.Scanner
	done bool
}

// order is what the process is started with.
type order struct {
	Instance, NodeNetNS, NetNS, Device string
	Addrs                              []netip.Addr
	// Beside is how agents come: those of versions before did not.
	Beside bool
}

const orderVariable = "FAIRLEAD_TEST_OTHER_AGENT"

// TestOtherAgent is that process; it is none by itself.
func TestOtherAgent(t *testing.T) {
	text := os.Getenv(orderVariable)
	if !strings.HasPrefix(text, "{") {
		t.Skip("it is started by others")
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	var r *Redirector
	p := &podNS{device: o.Device, carrying: &sync.WaitGroup{}, carried: &carried{}}
	var err error
	orders := bufio.NewScanner(os.Stdin)
	for orders.Scan() {
		switch orders.Text() {
		case "take":
			if r, err = New(Options{Instance: o.Instance, NodeNetNS: o.NodeNetNS, Beside: o.Beside, Logger: slog.New(slog.DiscardHandler)}); err != nil {
				break
			}
			files := []*os.File{os.NewFile(3, "outbound"), os.NewFile(4, "inbound"), os.NewFile(5, "hbone")}
			p.pod, err = r.Enroll(t.Context(), PodSpec{UID: o.Device, NetNS: o.NetNS, Addrs: o.Addrs, HostInterface: o.Device, Listeners: files})
		case "serve":
			carry(p)
		case "own":
			err = r.Own()
		case "insist":
			if err = r.Reassert(); err == nil {
				err = r.Own()
			}
		case "leave":
			p.pod.Deafen()
			p.carrying.Wait()
			if err = p.pod.Leave(); err == nil {
				err = r.Close()
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("done %s %d %d\n", layout, p.carried.outbound.Load(), p.carried.inbound.Load())
	}
}

// otherBinary is these tests, built with the other layout.
func otherBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "redirect.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "nextlayout", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func (n *node) otherAgent(binary string, p *podNS, listeners []*os.File, beside bool) *otherAgent {
	n.t.Helper()
	b, err := json.Marshal(order{Instance: n.instance, NodeNetNS: n.ns.Path(), NetNS: p.ns.Path(), Device: p.device, Addrs: []netip.Addr{p.ip4, p.ip6}, Beside: beside})
	if err != nil {
		n.t.Fatal(err)
	}
	in, mine, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	a := &otherAgent{n: n, cmd: exec.Command(binary, "-test.run", "^TestOtherAgent$"), in: mine}
	a.cmd.Env = append(os.Environ(), orderVariable+"="+string(b))
	a.cmd.Stdin, a.cmd.Stderr, a.cmd.ExtraFiles = in, os.Stderr, listeners
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		n.t.Fatal(err)
	}
	a.out = bufio.NewScanner(out)
	if err := a.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	in.Close()
	n.t.Cleanup(a.end)
	return a
}

func (a *otherAgent) end() {
	if !a.done {
		a.done = true
		a.in.Close()
		_ = a.cmd.Process.Kill()
		_ = a.cmd.Wait()
	}
}

// do has the process do something, and returns its layout and what it carried so far.
func (a *otherAgent) do(what string) (version string, outbound, inbound int64) {
	a.n.t.Helper()
	if _, err := fmt.Fprintln(a.in, what); err != nil {
		a.n.t.Fatal(err)
	}
	for a.out.Scan() {
		if _, err := fmt.Sscanf(a.out.Text(), "done %s %d %d", &version, &outbound, &inbound); err == nil {
			return version, outbound, inbound
		}
		a.n.t.Logf("the other agent: %s", a.out.Text())
	}
	a.n.t.Fatalf("the other agent ends when it is to %s", what)
	return "", 0, 0
}

// pinned are the directories of an instance.
func (n *node) pinned() []string {
	n.t.Helper()
	found, err := os.ReadDir(n.r.pins)
	if err != nil {
		n.t.Fatal(err)
	}
	var out []string
	for _, f := range found {
		out = append(out, f.Name())
	}
	return out
}

// attached is a link and its program.
type attached struct {
	link    link.ID
	program ebpf.ProgramID
}

// attached is what is, by its pin.
func (n *node) attached() map[string]attached {
	n.t.Helper()
	out := map[string]attached{}
	var errs []error
	for name := range entries(filepath.Join(n.r.pins, linksDir), &errs) {
		l, err := link.LoadPinnedLink(n.r.linkPath(name), nil)
		if err != nil {
			n.t.Fatal(err)
		}
		info, err := l.Info()
		if err != nil {
			n.t.Fatal(err)
		}
		out[name] = attached{info.ID, info.Program}
		l.Close()
	}
	return out
}

// linkIDs are those of what is attached: a link that another takes the place of has
// another.
func (n *node) linkIDs() map[string]link.ID {
	n.t.Helper()
	out := map[string]link.ID{}
	for name, a := range n.attached() {
		out[name] = a.link
	}
	return out
}

// traffic asks without end, from an enrolled pod and towards it, and fails the test with
// the first connection that fails.
type traffic struct {
	asked  atomic.Int64
	stop   context.CancelFunc
	ending sync.WaitGroup
}

func (n *node) traffic(from *podNS, dst ...netip.AddrPort) *traffic {
	w := &traffic{}
	ctx, cancel := context.WithCancel(n.t.Context())
	w.stop = func() { cancel(); w.ending.Wait() }
	for i := range 2 {
		w.ending.Go(func() {
			for k := i; ctx.Err() == nil; k++ {
				if line, _, _, err := ask(from, dst[k%len(dst)]); err != nil || line == "" {
					n.t.Errorf("%s, after %d: %q %v", dst[k%len(dst)], w.asked.Load(), line, err)
					return
				}
				w.asked.Add(1)
			}
		})
	}
	n.t.Cleanup(w.stop)
	return w
}

func (w *traffic) more(t *testing.T, k int64) {
	t.Helper()
	from := w.asked.Load()
	eventually(t, "more connections", func() bool { return w.asked.Load() >= from+k || t.Failed() })
}

// An agent whose maps have another layout takes the node over, and the first one takes
// it back, again and again under traffic: no connection is refused, each is carried, and
// no link is ever detached, or beside another. Nothing of the other layout is left.
func TestAgentsOfTwoLayoutsTakeOverFromEachOther(t *testing.T) {
	n := newNode(t)
	binary := otherBinary(t)
	a, b, c := n.newPod(), n.newPod(), n.newPod()
	n.app(b, 8080)
	n.app(a, 8081)
	a.carried = &carried{}
	n.enrol(a)
	carry(a)
	fds, err := a.pod.Listeners()
	if err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "listener"))
	}
	t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	out := n.traffic(a, netip.AddrPortFrom(b.ip4, 8080), netip.AddrPortFrom(b.ip6, 8080))
	in := n.traffic(c, netip.AddrPortFrom(a.ip4, 8081), netip.AddrPortFrom(a.ip6, 8081))
	more := func() { out.more(t, 20); in.more(t, 20) }
	more()
	links := n.linkIDs()
	same := func(what string) {
		t.Helper()
		now := n.linkIDs()
		for name, id := range links {
			if now[name] != id {
				t.Errorf("%s: link %s was %d, is %d", what, name, id, now[name])
			}
		}
		if len(now) != len(links) {
			t.Errorf("%s: links %v, were %v", what, now, links)
		}
	}
	let := func(old *Redirector, before *podNS) {
		t.Helper()
		before.pod.Deafen()
		before.carrying.Wait()
		if err := before.pod.Leave(); err != nil {
			t.Error(err)
		}
		if err := old.Close(); err != nil {
			t.Error(err)
		}
	}
	var others carried
	for round := range 4 {
		beside := round < 2 // versions before put their programs in force at once
		other := n.otherAgent(binary, a, files, beside)
		before := n.attached()
		version, _, _ := other.do("take")
		if version == layout {
			t.Fatalf("the other agent has the same layout %s", version)
		}
		if same := maps.Equal(before, n.attached()); same != beside {
			t.Errorf("round %d: programs are the same: %v", round, same)
		}
		more() // who accepts is this one, whosever the programs are
		other.do("serve")
		more() // both accept
		if beside {
			let(n.r, a)
			other.do("own")
		} else {
			// The first takes the other for one that has failed, goes on, and ends after all.
			if err := errors.Join(n.r.Reassert(), n.r.Own()); err != nil {
				t.Fatal(err)
			}
			more()
			let(n.r, a)
			other.do("insist")
		}
		more()
		if got := n.pinned(); !slices.Equal(got, []string{linksDir, sharedDir, version}) {
			t.Errorf("after the other has taken over: %v", got)
		}
		same("after the other has taken over")

		n.r = n.agent(beside)
		next := *a
		next.carrying = &sync.WaitGroup{}
		a = &next
		if err := n.ns.Do(func() (err error) {
			a.pod, err = n.r.Enroll(t.Context(), PodSpec{UID: a.device, NetNS: a.ns.Path(), Addrs: []netip.Addr{a.ip4, a.ip6}, HostInterface: a.device, Listeners: files})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		more() // the other accepts
		carry(a)
		more()
		_, outbound, inbound := other.do("leave")
		others.outbound.Add(outbound)
		others.inbound.Add(inbound)
		other.end()
		if err := n.ns.Do(n.r.Own); err != nil {
			t.Fatal(err)
		}
		more()
		if got := n.pinned(); !slices.Equal(got, []string{linksDir, sharedDir, layout}) {
			t.Errorf("back: %v", got)
		}
		same("back")
	}
	// One that fails before it serves changes nothing.
	other := n.otherAgent(binary, a, files, false)
	other.do("take")
	more()
	other.end()
	more()
	if err := n.r.Reassert(); err != nil {
		t.Fatal(err)
	}
	if err := n.r.Own(); err != nil {
		t.Fatal(err)
	}
	same("after the other has failed")
	captured := n.verdict("connect", "captured")
	more()
	if got := n.verdict("connect", "captured"); got < captured+20 {
		t.Errorf("%d captured by the programs that are to be in force again, of 20 at least", got-captured)
	}
	out.stop()
	in.stop()
	pod, carrying := a.pod, a.carrying
	t.Cleanup(func() { _ = pod.Leave(); carrying.Wait() })
	for _, d := range []struct {
		name           string
		carried, asked int64
	}{
		{"from the pod", a.carried.outbound.Load() + others.outbound.Load(), out.asked.Load()},
		{"to the pod", a.carried.inbound.Load() + others.inbound.Load(), in.asked.Load()},
	} {
		if d.carried != d.asked {
			t.Errorf("%s: %d connections, of which an agent carried %d", d.name, d.asked, d.carried)
		}
	}
	t.Logf("%d connections from the pod, %d to it; the other layout carried %d and %d", out.asked.Load(), in.asked.Load(), others.outbound.Load(), others.inbound.Load())
}

// Without an agent in between, a captured pod is refused by the programs of either, and
// the next agent of another layout knows that it is captured before it is told of it.
func TestAnotherLayoutWithoutAnAgentBeforeFailsClosed(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	_ = a.pod.Leave()
	a.carrying.Wait()
	if err := n.r.Close(); err != nil {
		t.Fatal(err)
	}
	dst := netip.AddrPortFrom(b.ip4, 8080)
	refused := func(when string) {
		t.Helper()
		if _, _, _, err := ask(a, dst); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", when, err)
		}
	}
	refused("without an agent")
	// The other version comes, and dies before it enrols anyone.
	cmd := exec.Command(otherBinary(t), "-test.run", "^TestOtherAgentAlone$")
	cmd.Env = append(os.Environ(), orderVariable+"="+n.instance+" "+n.ns.Path())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	refused("with the other version's programs, and nobody enrolled")
	if got := n.pinned(); !slices.Contains(got, "v2") {
		t.Fatalf("the other version was not there: %v", got)
	}
	n.start()
	refused("back, and nobody enrolled")
	if err := n.r.Own(); err != nil {
		t.Fatal(err)
	}
	n.enrol(a)
	carry(a)
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() {
		t.Errorf("enrolled again: %q %v", line, err)
	}
}

// TestOtherAgentAlone takes an instance over and dies.
func TestOtherAgentAlone(t *testing.T) {
	instance, node, ok := strings.Cut(os.Getenv(orderVariable), " /")
	if !ok {
		t.Skip("it is started by others")
	}
	r, err := New(Options{Instance: instance, NodeNetNS: "/" + node, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
}

// Pins of builds from before layouts could be told apart are taken over where they are.
func TestPinsOfEarlierBuildsAreTakenOver(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	_ = a.pod.Leave()
	a.carrying.Wait()
	pins := n.r.pins
	if err := n.r.Close(); err != nil {
		t.Fatal(err)
	}
	before := pinsBefore("/sys/fs/bpf", n.instance)
	if err := os.MkdirAll(before, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{linksDir, sharedDir, layout} {
		var errs []error
		for name := range entries(filepath.Join(pins, dir), &errs) {
			if name == "roster" || name == "pending" {
				continue // those builds had none
			}
			if err := os.Rename(filepath.Join(pins, dir, name), filepath.Join(before, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.RemoveAll(pins); err != nil {
		t.Fatal(err)
	}
	dst := netip.AddrPortFrom(b.ip4, 8080)
	if _, _, _, err := ask(a, dst); err == nil {
		t.Fatal("not captured: the test shows nothing")
	}
	n.start()
	if _, err := os.Stat(before); err == nil {
		t.Error("they are still where they were")
	}
	if _, _, _, err := ask(a, dst); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("taken over, and not enrolled again: %v", err)
	}
	n.enrol(a)
	carry(a)
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() {
		t.Errorf("enrolled again: %q %v", line, err)
	}
}
