package redirect

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// tables is what the kernel's tables say of pods.
func (n *node) tables() string {
	n.t.Helper()
	pods, devices, err := n.r.entered()
	if err != nil {
		n.t.Fatal(err)
	}
	roster, err := collect[bpfobj.ConnectRosterEntry, uint64](n.r.tables["roster"])
	if err != nil {
		n.t.Fatal(err)
	}
	for cookie, p := range pods { // what ends by itself
		p.Flags &^= flagSettling
		pods[cookie] = p
	}
	return fmt.Sprint(pods, devices, roster)
}

// beside enrols a pod with another agent, which shares its listeners.
func (n *node) beside(r *Redirector, p *podNS) *podNS {
	n.t.Helper()
	fds, err := p.pod.Listeners()
	if err != nil {
		n.t.Fatal(err)
	}
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), "listener"))
	}
	next := *p
	next.carrying, next.carried = &sync.WaitGroup{}, &carried{}
	if err := n.ns.Do(func() error {
		next.pod, err = r.Enroll(n.t.Context(), PodSpec{UID: p.device, NetNS: p.ns.Path(), Addrs: []netip.Addr{p.ip4, p.ip6}, HostInterface: p.device, TCPOnly: true, Listeners: files})
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	for _, f := range files {
		f.Close()
	}
	n.t.Cleanup(func() { _ = next.pod.Leave(); next.carrying.Wait() })
	return &next
}

// An agent that comes up beside another, however slow it is, changes nothing before it
// owns the node; neither when it gives up.
func TestAgentBesideAnotherChangesNothing(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	dst := netip.AddrPortFrom(b.ip4, 8080)
	a.carried = &carried{}
	n.enrol(a)
	carry(a)
	rules := func() (n int) {
		t.Helper()
		if err := a.ns.Do(func() error {
			all, err := netlink.RuleList(netlink.FAMILY_ALL)
			n = len(all)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	attached, tables, ruled := n.attached(), n.tables(), rules()
	same := func(when string) {
		t.Helper()
		if now := n.attached(); !maps.Equal(now, attached) {
			t.Errorf("%s: attached %v, was %v", when, now, attached)
		}
		if now := n.tables(); now != tables {
			t.Errorf("%s: tables\n%s\nwere\n%s", when, now, tables)
		}
		if now := rules(); now != ruled {
			t.Errorf("%s: %d rules in the pod's namespace, were %d", when, now, ruled)
		}
	}
	late := n.agent(true)
	other := n.beside(late, a)
	if err := other.pod.SetTCPOnly(true); err != nil {
		t.Error(err)
	}
	same("the next agent is ready")
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() || a.carried.outbound.Load() != 1 {
		t.Errorf("%q %v, %d carried", line, err, a.carried.outbound.Load())
	}
	// It gives up, and another comes.
	if err := errors.Join(other.pod.Close(), late.Close()); err != nil {
		t.Error(err)
	}
	same("the next agent has given up")
	late = n.agent(true)
	other = n.beside(late, a)
	// The first goes on, and the pod leaves the mesh; the next one wakes up, and gives up.
	if err := a.pod.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	attached, tables = n.attached(), n.tables()
	if err := errors.Join(other.pod.Close(), late.Close()); err != nil {
		t.Error(err)
	}
	same("the late agent has given up")
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() || a.carried.outbound.Load() != 1 {
		t.Errorf("out of the mesh: %q %v, %d carried", line, err, a.carried.outbound.Load())
	}
	if err := a.pod.Close(); err != nil {
		t.Error(err)
	}
	a.carrying.Wait()
	// One that owns the node in the end has its programs in force, and its pods.
	n.enrol(a)
	carry(a)
	attached = n.attached()
	next := n.agent(true)
	other = n.beside(next, a)
	carry(other)
	a.pod.Deafen()
	a.carrying.Wait()
	if err := a.pod.Leave(); err != nil {
		t.Error(err)
	}
	if err := n.r.Close(); err != nil {
		t.Error(err)
	}
	n.r = next
	if err := n.ns.Do(next.Own); err != nil {
		t.Fatal(err)
	}
	for name, is := range n.attached() {
		if was := attached[name]; is.link != was.link || is.program == was.program {
			t.Errorf("%s: %v, was %v: want another program on the same link", name, is, was)
		}
	}
	if got := other.pod.entry.Flags; got&^flagSettling != flagCaptured|flagTCPOnly {
		t.Errorf("flags %d", got)
	}
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() || other.carried.outbound.Load() != 1 {
		t.Errorf("with the next agent: %q %v, %d carried", line, err, other.carried.outbound.Load())
	}
}
