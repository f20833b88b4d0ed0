package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCaptureAndSteering(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	n.enrol(b)
	carry(a)
	carry(b)
	runtime.GC() // a link that is not held would detach here
	for _, dst := range []netip.AddrPort{netip.AddrPortFrom(b.ip4, 8080), netip.AddrPortFrom(b.ip6, 8080), netip.AddrPortFrom(netip.AddrFrom16(b.ip4.As16()), 8080)} {
		before, steered := n.verdict("connect", "captured"), n.verdict("sk_lookup", "steered")
		line, peer, own, err := ask(a, dst)
		if err != nil {
			t.Fatalf("%s: %v; %v", dst, err, n.r.Verdicts())
		}
		want := a.ip4
		if dst.Addr().Is6() && !dst.Addr().Is4In6() {
			want = a.ip6
		}
		if line != want.String() {
			t.Errorf("%s: the application saw %s, want the client's %s", dst, line, want)
		}
		if peer != netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port()) || own.Addr() != want {
			t.Errorf("%s: the client sees %s from %s", dst, peer, own)
		}
		if n.verdict("connect", "captured") != before+1 || n.verdict("sk_lookup", "steered") != steered+1 {
			t.Errorf("%s: not counted as captured and steered: %v", dst, n.r.Verdicts())
		}
	}
}

func TestRefusedPortIsTold(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.enrol(a)
	n.enrol(b)
	carry(a)
	carry(b)
	start := time.Now()
	if _, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 9)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port that no one listens on: %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("told after %s", d)
	}
}

func TestAgentsPortsAreClosedToOthers(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.enrol(b)
	for _, ip := range []netip.Addr{b.ip4, b.ip6} {
		for _, port := range []uint16{portOutbound, portInbound} {
			if _, _, _, err := ask(a, netip.AddrPortFrom(ip, port)); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s port %d from another pod: %v", ip, port, err)
			}
		}
	}
}

// Without an agent the pins stay, and captured means refused; a new agent takes over.
func TestFailsClosedAndTakesOver(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	dst := netip.AddrPortFrom(b.ip4, 8080)
	if _, _, _, err := ask(a, dst); err != nil {
		t.Fatal(err)
	}
	if err := a.pod.Leave(); err != nil {
		t.Fatal(err)
	}
	a.carrying.Wait()
	if err := n.r.Close(); err != nil {
		t.Fatal(err)
	}
	for _, d := range []netip.AddrPort{dst, netip.AddrPortFrom(b.ip6, 8080)} {
		if _, _, _, err := ask(a, d); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s without an agent: %v", d, err)
		}
	}
	n.app(a, 8081)
	if _, _, _, err := ask(b, netip.AddrPortFrom(a.ip4, 8081)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("to the pod without an agent: %v", err)
	}
	n.start()
	n.enrol(a)
	carry(a)
	if line, _, _, err := ask(a, dst); err != nil || line != a.ip4.String() {
		t.Errorf("after the take-over: %q, %v", line, err)
	}
	if err := a.pod.Close(); err != nil {
		t.Error(err)
	}
	captured := n.verdict("connect", "captured")
	if _, _, _, err := ask(a, dst); err != nil {
		t.Errorf("after it left the mesh: %v", err)
	}
	if n.verdict("connect", "captured") != captured {
		t.Error("still captured after it left")
	}
}

func TestGuardDropsWhatWasNotAnnounced(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.enrol(a)
	before, spoofed := n.verdict("guard", "drop_syn"), n.verdict("guard", "drop_spoofed")
	for i, src := range []netip.Addr{a.ip4, netip.MustParseAddr("10.99.0.77")} {
		if err := a.ns.Do(func() error { return rawSYN(src, netip.AddrPortFrom(b.ip4, 7)) }); err != nil {
			t.Fatal(i, err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for n.verdict("guard", "drop_syn") != before+1 || n.verdict("guard", "drop_spoofed") != spoofed+1 {
		if time.Now().After(deadline) {
			t.Fatalf("the guard counted %v", n.r.Verdicts())
		}
		runtime.Gosched()
	}
}

// rawSYN sends a SYN past connect().
func rawSYN(src netip.Addr, dst netip.AddrPort) error { return rawSegment(src, dst, 2, nil) }

func TestLateRebindAndMPTCPAreRefused(t *testing.T) {
	n := newNode(t)
	a, b := n.newPod(), n.newPod()
	n.app(b, 8080)
	n.enrol(a)
	carry(a)
	err := a.ns.Do(func() error {
		if _, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("MPTCP: %w", err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "eth0"); err != nil {
			return fmt.Errorf("bind before connect: %w", err)
		}
		if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(b.ip4, 8080))); err != nil {
			return fmt.Errorf("connect of a bound socket: %w", err)
		}
		if err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, "eth0"); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("bind after connect: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// With 1,000 ports in the pod, 8,000 connections to ten destinations must be had:
// the listener is spread over many addresses.
func TestManyConnectionsWithFewPorts(t *testing.T) {
	n := newNode(t)
	a := n.newPod()
	n.enrol(a)
	var held []net.Conn
	go func() {
		for {
			c, err := a.pod.Outbound().Accept()
			if err != nil {
				return
			}
			held = append(held, c)
		}
	}()
	err := a.ns.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40999"), 0o644); err != nil {
			return err
		}
		fds := make([]int, 0, 8000)
		defer func() {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}()
		for i := range 8000 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			fds = append(fds, fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 80, Addr: [4]byte{192, 0, 2, byte(i % 10)}}); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTwoInstancesSideBySide(t *testing.T) {
	one, two := newNode(t), newNode(t)
	a, b, c := one.newPod(), one.newPod(), two.newPod()
	one.app(b, 8080)
	one.enrol(a)
	two.enrol(c)
	carry(a)
	before := two.verdict("connect", "captured")
	if _, _, _, err := ask(a, netip.AddrPortFrom(b.ip4, 8080)); err != nil {
		t.Error(err)
	}
	if two.verdict("connect", "captured") != before {
		t.Error("an instance captured another's pod")
	}
}

func TestPurgeLeavesNothing(t *testing.T) {
	n := newNode(t)
	n.enrol(n.newPod())
	if err := Purge("", n.instance, ""); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob("/sys/fs/bpf/fairlead/" + n.instance + "*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The names in Go and the numbers in C are one list.
func TestVerdictsAreNamedInOrder(t *testing.T) {
	b, err := os.ReadFile("../../bpf/lib/verdict.h")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\t([A-Z_]+)(?: = (\d+))?,`).FindAllStringSubmatch(string(b), -1)
	if len(found) != len(verdictNames)+1 {
		t.Fatalf("%d verdicts in C, %d in Go", len(found)-1, len(verdictNames))
	}
	for i, f := range found[:len(found)-1] {
		words := strings.Split(strings.ToLower(strings.TrimPrefix(f[1], "GUARD_")), "_")
		if f[2] != fmt.Sprint(i) || !strings.HasPrefix(verdictNames[i].name, words[0]) {
			t.Errorf("number %d is %s (%s) in C, %s in Go", i, f[1], f[2], verdictNames[i].name)
		}
	}
}
