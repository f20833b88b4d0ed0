package redirect

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// An agent in a pod of its own: the node's namespace is not the process's, and
// nobody tells it the names of devices.
func TestAgentOutsideTheNodesNamespace(t *testing.T) {
	n := newNode(t)
	if err := n.r.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Instance: n.instance, NodeNetNS: n.ns.Path(), Mounted: true, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	n.r = r
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	for _, p := range []*podNS{a, b} {
		if p.pod, err = r.Enroll(t.Context(), PodSpec{UID: p.device, NetNS: p.ns.Path(), Addrs: []netip.Addr{p.ip4, p.ip6}}); err != nil {
			t.Fatal(err)
		}
		pod := p.pod
		t.Cleanup(func() { _ = pod.Leave(); p.carrying.Wait() })
		carry(p)
	}
	dst := netip.AddrPortFrom(b.ip4, 8080)
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() {
		t.Errorf("%q, %v", line, err)
	}
	if got := n.verdict("connect", "captured"); got != 1 {
		t.Errorf("%d connections captured, want 1", got)
	}
	if err := a.ns.Do(func() error { return rawSYN(a.ip4, dst) }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the SYN is dropped on the node", func() bool { return count(a.pod.Verdicts(), "drop_syn") == 1 })
	if err := a.pod.Release(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := a.ns.Do(func() error { return rawSYN(a.ip4, dst) }); err != nil {
		t.Errorf("after it left: %v", err)
	}
	if got := count(a.pod.Verdicts(), "drop_syn"); got > 1 {
		t.Errorf("%d dropped after it left", got)
	}
}

func TestPodWithoutVethIsRefusedWithAReason(t *testing.T) {
	n := newNode(t)
	name := n.name + "-macvlan"
	ns, err := netns.New(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close(); _ = netns.Delete(name) })
	n.sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link add link up0 name m0 netns " + name + " type macvlan mode bridge; ip -n " + name + " addr add 10.99.0.9/24 dev m0")
	for want, spec := range map[string]PodSpec{
		"of type macvlan":              {UID: "m", NetNS: ns.Path(), Addrs: []netip.Addr{netip.MustParseAddr("10.99.0.9")}},
		"no device of the pod has its": {UID: "m", NetNS: ns.Path(), Addrs: []netip.Addr{netip.MustParseAddr("10.99.0.10")}},
	} {
		err := n.ns.Do(func() error { _, err := n.r.Enroll(t.Context(), spec); return err })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// As in a container that is not privileged.
func TestSysctlsAreSetWhereProcSysIsReadOnly(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("sh", "-ec", `mount --make-rprivate /; mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
if echo 0 2>/dev/null >/proc/sys/net/ipv4/fwmark_reflect; then echo it is not read-only; exit 9; fi
READ_ONLY=1 exec "$0" -test.run '^TestCaptureAndSteering$' -test.v`, os.Args[0])
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestCaptureAndSteering") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNamespaceIsLeftAsItWas(t *testing.T) {
	n := newNode(t)
	p := n.newPod()
	look := func() string {
		cmd := exec.Command("sh", "-ec", "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; cd /proc/sys/net; cat ipv4/tcp_fwmark_accept ipv4/fwmark_reflect ipv6/fwmark_reflect")
		var out strings.Builder
		cmd.Stdout = &out
		if err := p.ns.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	before := look()
	n.enrol(p)
	if look() == before {
		t.Fatal("an enrolled pod's namespace looks as before: the test sees nothing")
	}
	if err := n.ns.Do(p.pod.Close); err != nil {
		t.Fatal(err)
	}
	if after := look(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// Another agent takes over listeners, programs and tables while connections are
// made: none is refused, and none goes around.
func TestAnotherAgentTakesOverUnderTraffic(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	dst, from := netip.AddrPortFrom(b.ip4, 8080), a
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			if _, _, _, err := ask(from, dst); err != nil {
				t.Errorf("after %d: %v", asked.Load(), err)
				return
			}
			asked.Add(1)
		}
	}()
	more := func() {
		from := asked.Load()
		eventually(t, "more connections", func() bool { return asked.Load() >= from+20 || t.Failed() })
	}
	for range 5 {
		more()
		before := a
		fds, err := before.pod.Listeners()
		if err != nil {
			t.Fatal(err)
		}
		var files []*os.File
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "l"))
		}
		old := n.r
		n.start()
		next := *a
		next.carrying = &sync.WaitGroup{}
		a = &next
		if err := n.ns.Do(func() error {
			a.pod, err = n.r.Enroll(t.Context(), PodSpec{UID: a.device, NetNS: a.ns.Path(), Addrs: []netip.Addr{a.ip4, a.ip6}, HostInterface: a.device, Listeners: files})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			f.Close()
		}
		carry(a)
		more()
		before.pod.Deafen()
		before.carrying.Wait() // what it carried ends in order
		if err := before.pod.Leave(); err != nil {
			t.Fatal(err)
		}
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
		more()
	}
	cancel()
	<-done
	if captured := n.verdict("connect", "captured"); captured < uint64(asked.Load()) {
		t.Errorf("%d of %d connections captured", captured, asked.Load())
	}
	pod, carrying := a.pod, a.carrying
	t.Cleanup(func() { _ = pod.Leave(); carrying.Wait() })
	t.Logf("%d connections", asked.Load())
}
