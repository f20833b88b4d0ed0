package redirect

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// node is a node of its own: a namespace with a bridge, and pods on it.
type node struct {
	t        *testing.T
	ns       *netns.NS
	name     string
	instance string
	bpffs    string // "" is the machine's
	r        *Redirector
	pods     int
}

type podNS struct {
	ns       *netns.NS
	ip4, ip6 netip.Addr
	device   string
	pod      *Pod
	carrying *sync.WaitGroup
	// carried counts what the agent accepted, outbound and inbound; may be nil.
	carried *carried
}

// carried counts connections.
type carried struct{ outbound, inbound atomic.Int64 }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("kernel tests need root")
	}
	t.Skip("kernel tests need root")
}

var nodes int

func newNode(t *testing.T) *node {
	t.Helper()
	needRoot(t)
	sweep.Do(func() { deleteOrphans(t) })
	nodes++
	n := &node{t: t, name: fmt.Sprintf("fl-rd%d-%d", os.Getpid(), nodes), instance: fmt.Sprintf("test-%d-%d", os.Getpid(), nodes)}
	var err error
	if n.ns, err = netns.New(n.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n.r != nil {
			_ = n.r.Close()
		}
		if err := Purge(n.bpffs, n.instance, ""); err != nil {
			t.Error(err)
		}
		n.ns.Close()
		_ = netns.Delete(n.name)
	})
	n.sh("ip link set lo up; ip link add br0 type bridge; ip addr add 10.99.0.1/24 dev br0; ip -6 addr add fd99::1/64 dev br0 nodad; ip link set br0 up; test -n \"$READ_ONLY\" || sysctl -qw net.ipv4.ip_forward=1")
	n.start()
	return n
}

func (n *node) start() { n.t.Helper(); n.r = n.agent(false) }

// agent is one more of the node's, which owns it unless it is beside another.
func (n *node) agent(beside bool) (r *Redirector) {
	n.t.Helper()
	if err := n.ns.Do(func() (err error) {
		r, err = New(Options{Instance: n.instance, BPFFS: n.bpffs, Beside: beside, Logger: slog.New(slog.DiscardHandler)})
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	return r
}

func (n *node) sh(script string) {
	n.t.Helper()
	cmd := exec.Command("sh", "-ec", script)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := n.ns.Start(cmd); err != nil {
		n.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		n.t.Fatalf("%s: %v\n%s", script, err, out.String())
	}
}

func (n *node) newPod() *podNS {
	n.t.Helper()
	n.pods++
	i := n.pods + 1
	name := fmt.Sprintf("%s-p%d", n.name, i)
	ns, err := netns.New(name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { ns.Close(); _ = netns.Delete(name) })
	p := &podNS{ns: ns, ip4: netip.MustParseAddr(fmt.Sprintf("10.99.0.%d", i)), ip6: netip.MustParseAddr(fmt.Sprintf("fd99::%x", i)), device: fmt.Sprintf("v%d", i), carrying: &sync.WaitGroup{}}
	n.sh(fmt.Sprintf("ip link add %[1]s type veth peer name eth0 netns %[2]s; ip link set %[1]s master br0 up; ip -n %[2]s link set lo up; "+
		"ip -n %[2]s link set eth0 up; ip -n %[2]s addr add %[3]s/24 dev eth0; ip -n %[2]s -6 addr add %[4]s/64 dev eth0 nodad; ip -n %[2]s route add default via 10.99.0.1",
		p.device, name, p.ip4, p.ip6))
	return p
}

func (n *node) enrol(p *podNS) {
	n.t.Helper()
	err := n.ns.Do(func() (err error) {
		p.pod, err = n.r.Enroll(n.t.Context(), PodSpec{UID: p.device, NetNS: p.ns.Path(), Addrs: []netip.Addr{p.ip4, p.ip6}, HostInterface: p.device})
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	// What is carried ends before the maps are closed.
	pod := p.pod
	n.t.Cleanup(func() {
		_ = pod.Leave()
		p.carrying.Wait()
	})
}

// carry plays the proxy: it dials what was captured and copies.
func carry(p *podNS) {
	p.carrying.Go(func() {
		for {
			c, err := p.pod.Outbound().Accept()
			if err != nil {
				return
			}
			if p.carried != nil {
				p.carried.outbound.Add(1)
			}
			p.carrying.Go(func() {
				defer c.Close()
				dst, err := p.pod.OriginalDestination(c.(*net.TCPConn))
				if err != nil {
					return
				}
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				out, err := p.pod.Dial(ctx, dst)
				if err != nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					return
				}
				defer out.Close()
				go func() { _, _ = io.Copy(out, c); _ = out.CloseWrite() }()
				if _, err := io.Copy(c, out); err != nil {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
			})
		}
	})
	p.carrying.Go(func() {
		for {
			c, err := p.pod.InboundPlain().Accept()
			if err != nil {
				return
			}
			if p.carried != nil {
				p.carried.inbound.Add(1)
			}
			p.carrying.Go(func() {
				defer c.Close()
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
				defer cancel()
				app, err := p.pod.DialApp(ctx, addrPort(c.RemoteAddr()).Addr(), addrPort(c.LocalAddr()))
				if err != nil {
					_ = c.(*net.TCPConn).SetLinger(0)
					return
				}
				defer app.Close()
				go func() { _, _ = io.Copy(app, c); _ = app.CloseWrite() }()
				_, _ = io.Copy(c, app)
			})
		}
	})
}

// app answers each connection in the pod with the client's address.
func (n *node) app(p *podNS, port int) {
	n.t.Helper()
	var l net.Listener
	if err := p.ns.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "%s\n", addrPort(c.RemoteAddr()).Addr())
			c.Close()
		}
	}()
}

// ask connects from a pod and returns the first line.
func ask(p *podNS, dst netip.AddrPort) (line string, peer, own netip.AddrPort, err error) {
	err = p.ns.Do(func() error {
		c, err := net.DialTimeout("tcp", dst.String(), 3*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		peer, own = addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
		line, err = bufio.NewReader(c).ReadString('\n')
		line = strings.TrimSpace(line)
		return err
	})
	return line, peer, own, err
}

func (n *node) verdict(hook, name string) uint64 {
	for _, v := range n.r.Verdicts() {
		if v.Hook == hook && v.Name == name {
			return v.Count
		}
	}
	n.t.Fatalf("no verdict %s %s", hook, name)
	return 0
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
