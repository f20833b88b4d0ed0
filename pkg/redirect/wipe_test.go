package redirect

import (
	"errors"
	"maps"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ownBPFFS gives the node a BPF file system of its own, which the agent mounts.
func (n *node) ownBPFFS() {
	n.t.Helper()
	if err := errors.Join(n.r.Close(), Purge("", n.instance, "")); err != nil {
		n.t.Fatal(err)
	}
	n.bpffs = n.t.TempDir()
	n.t.Cleanup(func() {
		for unix.Unmount(n.bpffs, unix.MNT_DETACH) == nil { //nolint:revive // one lies on the other where it was mounted twice
		}
	})
	n.start()
}

// Somebody wipes the BPF file system under a running agent: nothing is let through, not
// for a moment; the agent pins all of it again, and stays fail closed when it ends.
func TestWipedPinsAreMadeAgain(t *testing.T) {
	for name, wipe := range map[string]func(n *node) error{
		"deleted":   func(n *node) error { return os.RemoveAll(n.r.pins) },
		"unmounted": func(n *node) error { return unix.Unmount(n.bpffs, 0) },
		"mounted over": func(n *node) error {
			return unix.Mount("bpf", n.bpffs, "bpf", 0, "mode=0700")
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.ownBPFFS()
			a, b, c := n.newPod(), n.newPod(), n.newPod()
			n.app(b, 8080)
			n.app(a, 8081)
			a.carried = &carried{}
			n.enrol(a)
			carry(a)
			carried := func(when string) {
				t.Helper()
				o, i, dropped := a.carried.outbound.Load(), a.carried.inbound.Load(), count(a.pod.Verdicts(), "drop_syn")
				for from, dst := range map[*podNS]netip.AddrPort{a: netip.AddrPortFrom(b.ip4, 8080), c: netip.AddrPortFrom(a.ip4, 8081)} {
					if line, _, _, err := ask(from, dst); err != nil || line == "" {
						t.Errorf("%s: %q %v", when, line, err)
					}
				}
				if err := a.ns.Do(func() error { return rawSYN(a.ip4, netip.AddrPortFrom(b.ip4, 8080)) }); err != nil {
					t.Fatal(err)
				}
				eventually(t, when+": the guard drops", func() bool { return count(a.pod.Verdicts(), "drop_syn") == dropped+1 })
				if o, i = a.carried.outbound.Load()-o, a.carried.inbound.Load()-i; o != 1 || i != 1 {
					t.Errorf("%s: %d of one connection from the pod are carried, %d of one to it", when, o, i)
				}
			}
			carried("before")
			if n, err := n.r.Mend(); n != 0 || err != nil {
				t.Errorf("nothing is missing: %d, %v", n, err)
			}
			links := n.linkIDs()
			if err := wipe(n); err != nil {
				t.Fatal(err)
			}
			carried("wiped")
			mended, err := n.r.Mend()
			if want := len(links) + len(n.r.tables); mended != want || err != nil {
				t.Errorf("%d pins made again, want %d: %v", mended, want, err)
			}
			if now := n.linkIDs(); !maps.Equal(now, links) {
				t.Errorf("links %v, were %v", now, links)
			}
			if n, err := n.r.Mend(); n != 0 || err != nil {
				t.Errorf("made again, and nothing is missing: %d, %v", n, err)
			}
			carried("made again")

			if err := a.pod.Leave(); err != nil {
				t.Error(err)
			}
			a.carrying.Wait()
			if err := n.r.Close(); err != nil {
				t.Error(err)
			}
			for from, dst := range map[*podNS]netip.AddrPort{a: netip.AddrPortFrom(b.ip4, 8080), c: netip.AddrPortFrom(a.ip4, 8081)} {
				if _, _, _, err := ask(from, dst); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("%s, without an agent: %v", dst, err)
				}
			}
			n.start()
			n.enrol(a)
			carry(a)
			carried("with the next agent")
			if err := a.pod.Release(t.Context()); err != nil {
				t.Error(err)
			}
			if line, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil || line != a.ip4.String() {
				t.Errorf("out of the mesh: %q %v", line, err)
			}
		})
	}
}

// In a container the agent cannot mount it for the node: it says what to do.
func TestWipedPinsWithoutABPFFS(t *testing.T) {
	n := newNode(t)
	n.ownBPFFS()
	n.r.opts.Mounted = true
	if err := unix.Unmount(n.bpffs, 0); err != nil {
		t.Fatal(err)
	}
	if mended, err := n.r.Mend(); mended != 0 || err == nil || !strings.Contains(err.Error(), "mount -t bpf bpf") {
		t.Errorf("%d, %v", mended, err)
	}
	if err := mountBPFFS(n.bpffs); err != nil {
		t.Fatal(err)
	}
	if mended, err := n.r.Mend(); mended == 0 || err != nil {
		t.Errorf("mounted again: %d, %v", mended, err)
	}
}

// What was taken off on purpose is not put back.
func TestPurgeUnderARunningAgent(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	a.carried = &carried{}
	n.enrol(a)
	carry(a)
	if err := n.ns.Do(func() error { return Purge("", n.instance, "") }); err != nil {
		t.Fatal(err)
	}
	if mended, err := n.r.Mend(); mended != 0 || !errors.Is(err, ErrDetached) {
		t.Errorf("%d, %v", mended, err)
	}
	if _, err := os.Stat(n.r.pins); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins: %v", err)
	}
	if line, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil || line != a.ip4.String() || a.carried.outbound.Load() != 0 {
		t.Errorf("%q %v, %d carried", line, err, a.carried.outbound.Load())
	}
	if got, err := n.r.Displaced(); err != nil || len(got) != 2 {
		t.Errorf("%v, %v", got, err)
	}
}
