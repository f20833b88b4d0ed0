package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// The agent's ports in a pod's namespace.
const (
	portOutbound = 15001
	portInbound  = 15006
	portHBONE    = 15008
)

// Pod is an enrolled pod: the sockets in its namespace, and its place in the
// kernel's tables. It is valid until Close.
type Pod struct {
	// Constant after Enroll.
	r      *Redirector
	spec   PodSpec
	ns     *netns.NS
	cookie uint64
	device uint32
	ip6    bool // the namespace has IPv6

	outbound, inbound, hbone *net.TCPListener
	steer                    bpfobj.SklookupObjects
	links                    []link.Link

	// mu guards below.
	mu     sync.Mutex
	closed bool
}

// Enroll captures a pod. On an error nothing of it is left, but for what an
// earlier run had made: then it stays refused.
func (r *Redirector) Enroll(_ context.Context, spec PodSpec) (pod *Pod, err error) {
	ip4, ip6, err := spec.families()
	if err != nil {
		return nil, err
	}
	ns, err := netns.Open(spec.NetNS)
	if err != nil {
		return nil, err
	}
	p := &Pod{r: r, spec: spec, ns: ns}
	defer func() {
		if err != nil {
			err = fmt.Errorf("enrol pod %s: %w", spec.UID, err)
			p.closeSockets()
			_ = ns.Close()
		}
	}()
	if p.cookie, err = ns.Cookie(); err != nil {
		return nil, err
	}
	if p.cookie == r.node {
		return nil, errors.New("it is in the node's own network namespace")
	}
	r.mu.Lock()
	_, twice := r.pods[p.cookie]
	r.mu.Unlock()
	if twice {
		return nil, errors.New("its network namespace is another pod's already")
	}
	if err := ns.Do(func() error { return p.prepare(ip6.IsValid()) }); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	raw, err := p.inbound.SyscallConn()
	if err != nil {
		return nil, err
	}
	var perr error
	if err := raw.Control(func(fd uintptr) {
		perr = r.connect.Listeners.Put(bpfobj.SklookupListenerKey{Cookie: p.cookie}, uint64(fd))
	}); err != nil || perr != nil {
		return nil, fmt.Errorf("register the listener: %w", errors.Join(err, perr))
	}
	entry := bpfobj.ConnectPod{}
	if ip4.IsValid() {
		entry.Ip4 = kernelAddr(ip4)
	}
	if ip6.IsValid() {
		entry.Ip6 = kernelAddr(ip6)
	}
	if spec.TCPOnly {
		entry.Flags = 1
	}
	known := r.connect.Pods.Lookup(p.cookie, &bpfobj.ConnectPod{}) == nil
	if err := r.connect.Pods.Put(p.cookie, entry); err != nil {
		return nil, fmt.Errorf("capture: %w", err)
	}
	if err := p.attach(); err != nil {
		if !known {
			err = errors.Join(err, r.forget(p.cookie))
		}
		return nil, err
	}
	r.mu.Lock()
	r.pods[p.cookie] = p
	r.mu.Unlock()
	return p, nil
}

func (p *Pod) attach() error {
	if p.spec.HostInterface != "" {
		device, err := net.InterfaceByName(p.spec.HostInterface)
		if err != nil {
			return fmt.Errorf("guard: device %s: %w", p.spec.HostInterface, err)
		}
		p.device = uint32(device.Index) //nolint:gosec // an index
		if err := p.r.connect.Guarded.Put(p.device, p.cookie); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
		l, err := p.r.pinned(guardPin(p.device), p.r.guard.Guard, func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: device.Index, Program: p.r.guard.Guard, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		})
		if err != nil {
			return fmt.Errorf("guard on %s: %w", p.spec.HostInterface, err)
		}
		p.links = append(p.links, l)
	}
	spec, err := p.r.specify(bpfobj.LoadSklookup, p.cookie)
	if err != nil {
		return err
	}
	if err := spec.LoadAndAssign(&p.steer, p.r.collection()); err != nil {
		return fmt.Errorf("load the pod's sk_lookup program: %w", explain(err))
	}
	handle, err := os.Open(p.ns.Path())
	if err != nil {
		return err
	}
	defer handle.Close()
	l, err := p.r.pinned(steerPin(p.cookie), p.steer.Steer, func() (link.Link, error) {
		return link.AttachNetNs(int(handle.Fd()), p.steer.Steer) //nolint:gosec // a descriptor
	})
	if err != nil {
		return fmt.Errorf("attach sk_lookup to %s: %w", p.ns.Path(), err)
	}
	p.links = append(p.links, l)
	return nil
}

// listen opens the agent's listeners in the pod.
func (p *Pod) listen() error {
	for _, l := range []struct {
		port int
		into **net.TCPListener
	}{{portOutbound, &p.outbound}, {portInbound, &p.inbound}, {portHBONE, &p.hbone}} {
		if err := p.ns.Do(func() error {
			config := net.ListenConfig{Control: control(func(fd int) error {
				if l.port == portInbound {
					// It accepts connections to addresses of any kind that are steered.
					_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
				}
				return nil
			})}
			config.SetMultipathTCP(false)
			address := fmt.Sprintf("[::]:%d", l.port)
			if !p.ip6 {
				address = fmt.Sprintf("0.0.0.0:%d", l.port)
			}
			listener, err := config.Listen(context.Background(), "tcp", address)
			if err != nil {
				return fmt.Errorf("listen on port %d in the pod (does its application use it?): %w", l.port, err)
			}
			*l.into = listener.(*net.TCPListener)
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func control(set func(fd int) error) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) { serr = set(int(fd)) }); err != nil { //nolint:gosec // a descriptor
			return err
		}
		return serr
	}
}

// UID is the pod's.
func (p *Pod) UID() string { return p.spec.UID }

// Cookie is that of its network namespace.
func (p *Pod) Cookie() uint64 { return p.cookie }

// Outbound accepts the pod's captured connections.
func (p *Pod) Outbound() net.Listener { return p.outbound }

// InboundPlain accepts plaintext connections to the pod.
func (p *Pod) InboundPlain() net.Listener { return p.inbound }

// InboundHBONE accepts tunnels to the pod.
func (p *Pod) InboundHBONE() net.Listener { return p.hbone }

// OriginalDestination is where the pod meant to go with a captured connection.
// The record is used up.
func (p *Pod) OriginalDestination(c *net.TCPConn) (o netip.AddrPort, err error) {
	key := flow(p.cookie, addrPort(c.RemoteAddr()), addrPort(c.LocalAddr()))
	var origin bpfobj.ConnectOrigin
	if err := p.r.connect.Origins.LookupAndDelete(key, &origin); err != nil {
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return o, ErrNoOrigin
		}
		return o, fmt.Errorf("original destination: %w", err)
	}
	return netip.AddrPortFrom(fromKernel(origin.Dst), origin.Port), nil
}

// Close lets go of the pod: it is outside the mesh from then on.
func (p *Pod) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.r.mu.Lock()
	delete(p.r.pods, p.cookie)
	p.r.mu.Unlock()
	// Tables first: nothing is captured that nobody would take.
	var errs []error
	errs = append(errs, p.r.forget(p.cookie))
	if p.device != 0 {
		errs = append(errs, os.RemoveAll(filepath.Join(p.r.pins, guardPin(p.device))))
	}
	p.closeSockets()
	errs = append(errs, p.ns.Close())
	return errors.Join(errs...)
}

// Leave closes the pod's sockets and keeps it captured and refused: for an agent
// that stops.
func (p *Pod) Leave() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.closeSockets()
	return p.ns.Close()
}

func (p *Pod) closeSockets() {
	for _, l := range []*net.TCPListener{p.outbound, p.inbound, p.hbone} {
		if l != nil {
			_ = l.Close()
		}
	}
	for _, l := range p.links {
		_ = l.Close()
	}
	_ = p.steer.Close()
}
