package redirect

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// eventually polls.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func count(all []Verdict, name string) uint64 {
	for _, v := range all {
		if v.Name == name {
			return v.Count
		}
	}
	return 0
}

// Data in segments of no connection would need no SYN to leave the pod.
func TestStraySegmentsAreDropped(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	if err := a.ns.Do(func() error { return rawSegment(a.ip4, netip.AddrPortFrom(b.ip4, 8080), 0x18, []byte("secret")) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the segment is dropped", func() bool { return count(a.pod.Verdicts(), "drop_stray") == 1 })
	// The segments of a real connection pass.
	if line, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil || line != a.ip4.String() {
		t.Errorf("%q, %v", line, err)
	}
	if got := count(a.pod.Verdicts(), "drop_stray"); got != 1 {
		t.Errorf("%d strays after a real connection", got)
	}
}

func rawSegment(src netip.Addr, dst netip.AddrPort, flags byte, payload []byte) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	b := make([]byte, 40+len(payload))
	b[0], b[3], b[8], b[9] = 0x45, byte(len(b)), 64, unix.IPPROTO_TCP
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.Addr().AsSlice())
	b[20], b[22], b[23], b[32], b[33] = 0x4e, byte(dst.Port()>>8), byte(dst.Port()), 5<<4, flags
	copy(b[40:], payload)
	return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: dst.Addr().As4()})
}

// A pod comes in and goes out while it makes connections: none is lost.
func TestEnrolmentLosesNoConnection(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	var asked, failed atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil {
				failed.Add(1)
				t.Errorf("after %d: %v", asked.Load(), err)
			}
			asked.Add(1)
		}
	}()
	more := func(k int64) {
		from := asked.Load()
		eventually(t, "more connections", func() bool { return asked.Load() >= from+k || failed.Load() > 0 })
	}
	for range 20 {
		more(5)
		n.enrol(a)
		carry(a)
		before := n.verdict("connect", "captured")
		eventually(t, "captured", func() bool { return n.verdict("connect", "captured") > before+5 || failed.Load() > 0 })
		if err := n.ns.Do(func() error { return a.pod.Release(t.Context()) }); err != nil {
			t.Fatal(err)
		}
		if err := a.pod.Close(); err != nil {
			t.Fatal(err)
		}
	}
	more(5)
	cancel()
	<-done
	t.Logf("%d connections over 20 enrolments", asked.Load())
}

// A pod that fills the tables is refused; others are not.
func TestPodHasAPartOfTheTables(t *testing.T) {
	n := newNode(t)
	a, b, c := n.newPod(), n.newPod(), n.newPod()
	n.app(c, 8080)
	n.enrol(a)
	n.enrol(b)
	carry(a)
	carry(b)
	if err := n.r.connect.Pending.Put(a.pod.Cookie(), bpfobj.ConnectUnderWay{Connections: 8192}); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := ask(a, netip.AddrPortFrom(c.ip4, 8080)); !errors.Is(err, syscall.EPERM) {
		t.Errorf("past its part: %v", err)
	}
	if count(a.pod.Verdicts(), "deny_quota") != 1 {
		t.Errorf("its counters: %v", a.pod.Verdicts())
	}
	if _, _, _, err := ask(b, netip.AddrPortFrom(c.ip4, 8080)); err != nil {
		t.Errorf("another pod: %v", err)
	}
}

// What is counted as under way comes back to zero, whatever became of it.
func TestTablesEmptyThemselves(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	n.enrol(b)
	carry(a)
	carry(b)
	for range 20 {
		_, _, _, _ = ask(a, netip.AddrPortFrom(b.ip4, 8080))
		_, _, _, _ = ask(a, netip.AddrPortFrom(b.ip4, 9)) // refused
		_, _, _, _ = ask(a, netip.AddrPortFrom(b.ip6, 8080))
	}
	for _, p := range []*podNS{a, b} {
		eventually(t, "nothing pending", func() bool {
			var c bpfobj.ConnectUnderWay
			return n.r.connect.Pending.Lookup(p.pod.Cookie(), &c) == nil && c.Connections == 0
		})
	}
	for name, m := range map[string]*ebpf.Map{"flows": n.r.connect.Flows, "origins": n.r.connect.Origins} {
		var k bpfobj.ConnectFlow
		eventually(t, name+" empty", func() bool { return errors.Is(m.NextKey(nil, &k), ebpf.ErrKeyNotExist) })
	}
}

// On kernels before 6.6 the guard is a clsact filter; purge takes it away too.
func TestGuardWithoutTCX(t *testing.T) {
	n := newNode(t)
	n.r.opts.withoutTCX = true
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	dst := netip.AddrPortFrom(b.ip4, 8080)
	if _, _, _, err := ask(a, dst); err != nil {
		t.Fatal(err)
	}
	if err := a.ns.Do(func() error { return rawSYN(a.ip4, dst) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the SYN is dropped", func() bool { return count(a.pod.Verdicts(), "drop_syn") == 1 })
	if err := n.ns.Do(a.pod.Close); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := ask(a, dst); err != nil {
		t.Errorf("after it left: %v", err)
	}
	n.enrol(a)
	if err := a.pod.Leave(); err != nil {
		t.Fatal(err)
	}
	a.carrying.Wait()
	if err := n.r.Close(); err != nil {
		t.Fatal(err)
	}
	if err := n.ns.Do(func() error { return Purge("", n.instance, "") }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "purged", func() bool { _, _, _, err := ask(a, dst); return err == nil })
}

// Another's program ahead of ours is told of.
func TestStrangerAheadIsToldOf(t *testing.T) {
	n := newNode(t)
	if got, err := n.r.Displaced(); err != nil || len(got) != 0 {
		t.Fatalf("alone: %v, %v", got, err)
	}
	stranger, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stranger", Type: ebpf.CGroupSockAddr, AttachType: ebpf.AttachCGroupInet4Connect, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	root, err := os.Open(n.r.opts.CgroupPath)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	l, err := link.AttachRawLink(link.RawLinkOptions{Target: int(root.Fd()), Program: stranger, Attach: ebpf.AttachCGroupInet4Connect, Flags: flagBefore | flagPreorder})
	if err != nil {
		t.Skipf("the kernel knows no order: %v", err)
	}
	got, err := n.r.Displaced()
	if cerr := l.Close(); cerr != nil {
		t.Fatal(cerr)
	}
	if err != nil || len(got) != 1 || !strings.Contains(got[0], `"stranger" runs ahead`) {
		t.Errorf("%v, %v", got, err)
	}
	if err := os.Remove(n.r.linkPath("link_connect6")); err != nil {
		t.Fatal(err)
	}
	n.r.letGo("link_connect6")
	eventually(t, "the detached program is told of", func() bool { // links go a moment after their last holder
		got, err := n.r.Displaced()
		return err == nil && len(got) == 1 && strings.Contains(got[0], "connect6: our program is not attached")
	})
}

func TestPrecheckOfThisMachine(t *testing.T) {
	needRoot(t)
	if missing := Precheck("", false); len(missing) > 0 {
		t.Errorf("the other tests run here, and yet: %v", missing)
	}
}

// Connections outlive programs, and every version reads the roster: what is in maps of
// all layouts keeps its form for ever.
func TestSharedMapsAreFrozen(t *testing.T) {
	var f bpfobj.ConnectFlow
	if unsafe.Sizeof(f) != 48 || unsafe.Offsetof(f.Src) != 8 || unsafe.Offsetof(f.Dst) != 24 || unsafe.Offsetof(f.Sport) != 40 || unsafe.Offsetof(f.Dport) != 42 {
		t.Errorf("struct flow changed: %+v", f)
	}
	if s := unsafe.Sizeof(bpfobj.ConnectAnnounced{}); s != 16 {
		t.Errorf("struct announced has %d bytes", s)
	}
	if s := unsafe.Sizeof(bpfobj.ConnectUnderWay{}); s != 8 {
		t.Errorf("struct under_way has %d bytes", s)
	}
	var e bpfobj.ConnectRosterEntry
	if unsafe.Sizeof(e) != 80 || unsafe.Offsetof(e.Ip6) != 16 || unsafe.Offsetof(e.Flags) != 32 || unsafe.Offsetof(e.Device) != 36 || unsafe.Offsetof(e.Nsid) != 40 {
		t.Errorf("struct roster_entry changed: %+v", e)
	}
	spec, err := bpfobj.LoadConnect()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][2]uint32{
		"flows": {48, 16}, "origins": {48, 32}, "pending": {8, 8}, "roster": {8, 80}, "kubelet": {4, 4},
		"origin_of": {4, 32}, "accepted": {4, 32}, "agent_sockets": {4, 8}, "probe_sockets": {4, 8},
	} {
		if m := spec.Maps[name]; m == nil || m.KeySize != want[0] || m.ValueSize != want[1] || !slices.Contains(sharedMaps, name) {
			t.Errorf("%s: %+v, want keys and values of %v bytes in all layouts", name, m, want)
		}
	}
	var o bpfobj.ConnectOrigin
	if unsafe.Sizeof(o) != 32 || unsafe.Offsetof(o.Dst) != 0 || unsafe.Offsetof(o.Port) != 16 || unsafe.Offsetof(o.Reserved) != 24 {
		t.Errorf("struct origin changed: %+v", o)
	}
	if s := unsafe.Sizeof(bpfobj.ConnectAgentTag{}); s != 8 {
		t.Errorf("struct agent_tag has %d bytes", s)
	}
	if s := unsafe.Sizeof(bpfobj.ConnectProbeTag{}); s != 8 {
		t.Errorf("struct probe_tag has %d bytes", s)
	}
}
