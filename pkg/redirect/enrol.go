package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// Enroll captures a pod. On an error nothing of it is left, but for what an
// earlier run had made: then it stays refused. Beside another agent the pod is made
// ready only, and captured in [Redirector.Own].
func (r *Redirector) Enroll(_ context.Context, spec PodSpec) (pod *Pod, err error) {
	_, ip6, err := spec.families()
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
			err = Blame(fmt.Errorf("enrol pod %s: %w", spec.UID, err))
			p.Deafen()
			_ = ns.Close()
		}
	}()
	if p.cookie, err = ns.Cookie(); err != nil {
		return nil, err
	}
	if p.cookie == r.node {
		return nil, errors.New("it is in the node's own network namespace")
	}
	if spec.Cookie != 0 && p.cookie != spec.Cookie {
		return nil, fmt.Errorf("%s leads to another network namespace by now", spec.NetNS)
	}
	r.mu.Lock()
	_, twice := r.pods[p.cookie]
	twice = twice || r.entering[p.cookie]
	if !twice {
		r.entering[p.cookie] = true
	}
	r.mu.Unlock()
	if twice {
		return nil, errors.New("its network namespace is another pod's already")
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.entering, p.cookie)
	}()
	if err := ns.Do(func() error { return p.look(ip6.IsValid()) }); err != nil {
		return nil, err
	}
	if err := p.listen(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	beside := r.beside
	if beside {
		r.pods[p.cookie] = p
	}
	r.mu.Unlock()
	if beside {
		return p, nil
	}
	if err := p.install(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.pods[p.cookie] = p
	r.mu.Unlock()
	return p, nil
}

// install is what of an enrolment others see: the namespace is prepared, the kernel's
// tables know the pod, and the programs are this agent's.
func (p *Pod) install() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released || p.closed {
		return nil
	}
	if err := p.ns.Do(p.prepare); err != nil {
		return err
	}
	raw, err := p.inbound.SyscallConn()
	if err != nil {
		return err
	}
	var perr error
	if err := raw.Control(func(fd uintptr) {
		perr = p.r.connect.Listeners.Put(bpfobj.SklookupListenerKey{Cookie: p.cookie}, uint64(fd))
	}); err != nil || perr != nil {
		return fmt.Errorf("register the listener: %w", errors.Join(err, perr))
	}
	known, err := p.enter()
	if err != nil {
		return err
	}
	if err := p.attach(); err != nil {
		if !known {
			err = errors.Join(err, p.r.forget(p.cookie))
		}
		return err
	}
	if err := p.capture(known); err != nil {
		return errors.Join(err, p.r.forget(p.cookie))
	}
	p.installed = true
	return nil
}

// The flags of bpf/lib/types.h.
const (
	flagTCPOnly  = 1
	flagCaptured = 2
	flagSettling = 4
)

// settling is how long a connection may take from connect to its SYN.
const settling = time.Second

// enter puts the pod into the tables. Until it is captured its connections go as
// they did, announced to the guard, so that none is lost on the way in. A pod of
// an earlier run is captured already and stays so: known.
func (p *Pod) enter() (known bool, err error) {
	ip4, ip6, err := p.spec.families()
	if err != nil {
		return false, err
	}
	tables := &p.r.connect
	if err := p.r.makeCounters(p.cookie); err != nil {
		return false, err
	}
	var before bpfobj.ConnectPod
	known = tables.Pods.Lookup(p.cookie, &before) == nil
	entry := bpfobj.ConnectPod{Flags: before.Flags & flagCaptured}
	if ip4.IsValid() {
		entry.Ip4 = kernelAddr(ip4)
	}
	if ip6.IsValid() {
		entry.Ip6 = kernelAddr(ip6)
	}
	if p.spec.TCPOnly || p.tcpOnly {
		entry.Flags |= flagTCPOnly
	}
	p.entry = entry
	if err := p.put(); err != nil {
		return known, fmt.Errorf("enter the pod: %w", err)
	}
	return known, nil
}

// capture is the moment from which the pod's connections are the agent's. Those
// that are being made in it go as they would have.
func (p *Pod) capture(known bool) error {
	p.entry.Flags |= flagCaptured
	if !known {
		p.entry.Flags |= flagSettling
		time.AfterFunc(settling, p.settle)
	}
	if err := p.put(); err != nil {
		return fmt.Errorf("capture: %w", err)
	}
	return nil
}

// SetTCPOnly drops the pod's packets that are not TCP, or lets them pass unless
// its PodSpec says otherwise.
func (p *Pod) SetTCPOnly(only bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tcpOnly = only
	flags := p.entry.Flags &^ flagTCPOnly
	if only || p.spec.TCPOnly {
		flags |= flagTCPOnly
	}
	if !p.installed || p.released || p.closed || flags == p.entry.Flags {
		return nil
	}
	p.entry.Flags = flags
	if err := p.put(); err != nil {
		return fmt.Errorf("other protocols than TCP: %w", err)
	}
	return nil
}

func (p *Pod) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released || p.closed {
		return
	}
	p.entry.Flags &^= flagSettling
	if err := p.r.connect.Pods.Put(p.cookie, p.entry); err != nil {
		p.r.log.Warn("pod not settled", "uid", p.spec.UID, "err", err)
	}
}

// reassert puts this agent's programs back in force for the pod.
func (p *Pod) reassert() error {
	return errors.Join(p.r.onNode(func() error { return p.r.attachGuard(int(p.device)) }), p.attachSteer())
}

func (p *Pod) attach() error {
	if err := p.guardVeth(); err != nil {
		return err
	}
	return p.attachSteer()
}

// attachSteer steers what comes to the pod.
func (p *Pod) attachSteer() error {
	spec := p.r.steer.Copy()
	if err := spec.Variables["pod_cookie"].Set(p.cookie); err != nil {
		return fmt.Errorf("constant pod_cookie: %w", err)
	}
	var loaded struct {
		Steer *ebpf.Program `ebpf:"fl_steer"`
	}
	if err := spec.LoadAndAssign(&loaded, &ebpf.CollectionOptions{MapReplacements: p.r.tables, Cache: p.r.types}); err != nil {
		return fmt.Errorf("load the pod's sk_lookup program: %w", explain(err))
	}
	defer loaded.Steer.Close()
	handle, err := os.Open(p.ns.Path())
	if err != nil {
		return err
	}
	defer handle.Close()
	if err := p.r.hold(steerPin(p.cookie), loaded.Steer, func() (link.Link, error) {
		return link.AttachNetNs(int(handle.Fd()), loaded.Steer)
	}); err != nil {
		return fmt.Errorf("attach sk_lookup to %s: %w", p.ns.Path(), err)
	}
	return nil
}

// listen opens the agent's listeners in the pod.
func (p *Pod) listen() error {
	if p.spec.Listeners != nil {
		return p.share()
	}
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

// share takes over the listeners of another agent.
func (p *Pod) share() error {
	all := []**net.TCPListener{&p.outbound, &p.inbound, &p.hbone}
	if len(p.spec.Listeners) != len(all) {
		return fmt.Errorf("%d listeners of another agent, want %d", len(p.spec.Listeners), len(all))
	}
	for i, into := range all {
		l, err := net.FileListener(p.spec.Listeners[i])
		if err != nil {
			return fmt.Errorf("listener of another agent: %w", err)
		}
		listener, ok := l.(*net.TCPListener)
		if !ok {
			_ = l.Close()
			return errors.New("listener of another agent: it is not of TCP")
		}
		*into = listener
	}
	return nil
}

// Listeners returns new descriptors of the pod's listeners, for another agent.
func (p *Pod) Listeners() ([]int, error) {
	var fds []int
	for _, l := range []*net.TCPListener{p.outbound, p.inbound, p.hbone} {
		raw, err := l.SyscallConn()
		if err == nil {
			var fd int
			var derr error
			err = raw.Control(func(from uintptr) { fd, derr = unix.FcntlInt(from, unix.F_DUPFD_CLOEXEC, 0) })
			if err = errors.Join(err, derr); err == nil {
				fds = append(fds, fd)
			}
		}
		if err != nil {
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			return nil, fmt.Errorf("listeners of pod %s: %w", p.spec.UID, err)
		}
	}
	return fds, nil
}

func control(set func(fd int) error) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var serr error
		if err := c.Control(func(fd uintptr) { serr = set(int(fd)) }); err != nil {
			return err
		}
		return serr
	}
}
