package redirect

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// The order of attachment that cgroup programs ask for (bpf.h).
const (
	flagBefore   = 1 << 3
	flagPreorder = 1 << 6
)

// Redirector is the programs and maps of one instance.
type Redirector struct {
	// Constant after New.
	log  *slog.Logger
	pins string
	node uint64    // cookie of the node's namespace
	home *netns.NS // the node's namespace; nil is the calling thread's
	opts Options

	// tables are the instance's maps, by name.
	tables  map[string]*ebpf.Map
	connect bpfobj.ConnectObjects
	sockops bpfobj.SockopsObjects
	guard   bpfobj.GuardObjects
	socket  bpfobj.SocketObjects
	// steer is what each pod's sk_lookup program is made from; types is the kernel's,
	// decoded once.
	steer *ebpf.CollectionSpec
	types *btf.Cache

	// attached guards links and their pins.
	attached sync.Mutex
	links    map[string]link.Link // by the name of the pin

	// mu guards below.
	mu sync.Mutex
	// beside is whether another agent has the instance: nothing of it is changed.
	beside bool
	pods   map[uint64]*Pod // by cookie
	// entering are the cookies of pods that are being enrolled.
	entering map[uint64]bool
}

// New loads the programs, takes over the instance's pinned maps and links or
// makes them, and attaches what is not attached yet. Pods of an earlier run stay
// captured, and refused until they are enrolled again. Beside another agent it only gets
// ready: see [Redirector.Own].
func New(o Options) (_ *Redirector, err error) {
	defer func() { err = Blame(err) }()
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Redirector{log: o.Logger, pins: pinsOf(o.BPFFS, o.Instance), opts: o, links: map[string]link.Link{}, beside: o.Beside, pods: map[uint64]*Pod{}, entering: map[uint64]bool{}}
	if err := r.take(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// take opens what the node has of the instance, and makes the node this agent's unless
// another has it.
func (r *Redirector) take() error {
	if err := r.findNode(); err != nil {
		return err
	}
	if err := makePins(r.pins); err != nil {
		return err
	}
	adopted, err := r.adopt()
	if err != nil {
		return err
	}
	if err := r.load(); err != nil {
		return err
	}
	if err := r.holdAll(); err != nil {
		return err
	}
	if adopted {
		if err := r.enlist(); err != nil {
			return fmt.Errorf("the pods that are enrolled: %w", err)
		}
	}
	if r.beside {
		return nil
	}
	return r.assume()
}

// findNode opens the node's network namespace.
func (r *Redirector) findNode() error {
	if r.opts.NodeNetNS == "" {
		self, err := netns.Current()
		if err != nil {
			return err
		}
		defer self.Close()
		r.node, err = self.Cookie()
		return err
	}
	var err error
	if r.home, err = netns.Open(r.opts.NodeNetNS); err != nil {
		return fmt.Errorf("the node's network namespace: %w", err)
	}
	r.node, err = r.home.Cookie()
	return err
}

// onNode runs fn in the node's network namespace: what concerns devices there.
func (r *Redirector) onNode(fn func() error) error {
	if r.home == nil {
		return fn()
	}
	return r.home.Do(fn)
}

// specify readies a collection: its constants set.
func (r *Redirector) specify(load func() (*ebpf.CollectionSpec, error), pod uint64) (*ebpf.CollectionSpec, error) {
	spec, err := load()
	if err != nil {
		return nil, err
	}
	for name, value := range map[string]uint64{"node_cookie": r.node, "pod_cookie": pod} {
		if v := spec.Variables[name]; v != nil {
			if err := v.Set(value); err != nil {
				return nil, fmt.Errorf("constant %s: %w", name, err)
			}
		}
	}
	return spec, nil
}

func (r *Redirector) load() error {
	all, err := bpfobj.LoadConnect() // each part has all maps
	if err != nil {
		return err
	}
	if err := r.openMaps(all.Maps); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		load func() (*ebpf.CollectionSpec, error)
		into any
	}{
		{"connect", bpfobj.LoadConnect, &r.connect}, {"sockops", bpfobj.LoadSockops, &r.sockops},
		{"guard", bpfobj.LoadGuard, &r.guard}, {"socket", bpfobj.LoadSocket, &r.socket},
	} {
		spec, err := r.specify(part.load, 0)
		if err == nil {
			err = spec.LoadAndAssign(part.into, &ebpf.CollectionOptions{MapReplacements: r.tables})
		}
		if err != nil {
			return fmt.Errorf("load %s programs: %w", part.name, explain(err))
		}
	}
	r.types = btf.NewCache()
	r.steer, err = r.specify(bpfobj.LoadSklookup, 0)
	return err
}

// explain says what an operator can do about a load that failed.
func explain(err error) error {
	switch {
	case errors.Is(err, ebpf.ErrMapIncompatible):
		return fmt.Errorf("pinned maps of another build are in the way (node-agent purge removes them): %w", err)
	}
	return err
}

// CgroupRoot is the root of cgroup v2.
func (r *Redirector) CgroupRoot() string { return r.opts.CgroupPath }

// SetKubelet makes those of another cgroup v2 directory the ones whose connections
// to pods are probes: the kubelet's changes when it is started again.
func (r *Redirector) SetKubelet(path string) error { return r.knowKubelet(path) }

func (r *Redirector) knowKubelet(path string) error {
	if path == "" {
		return nil
	}
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("kubelet's cgroup: %w", err)
	}
	defer dir.Close()
	if err := r.connect.Kubelet.Put(uint32(0), uint32(dir.Fd())); err != nil {
		return fmt.Errorf("kubelet's cgroup %s: %w", path, err)
	}
	return nil
}

// hook is a place at the root of cgroups.
type hook struct {
	name    string
	program *ebpf.Program
	attach  ebpf.AttachType
}

// hooks are in the order of attachment: recording before redirecting, for a redirect
// without its record is a lost one.
func (r *Redirector) hooks() []hook {
	return []hook{
		{"sockops", r.sockops.FlRecord, ebpf.AttachCGroupSockOps},
		{"sock_create", r.socket.FlSockCreate, ebpf.AttachCGroupInetSockCreate},
		{"setsockopt", r.socket.FlSetsockopt, ebpf.AttachCGroupSetsockopt},
		{"getpeername4", r.connect.FlGetpeername4, ebpf.AttachCgroupInet4GetPeername},
		{"getpeername6", r.connect.FlGetpeername6, ebpf.AttachCgroupInet6GetPeername},
		{"getsockname4", r.connect.FlGetsockname4, ebpf.AttachCgroupInet4GetSockname},
		{"getsockname6", r.connect.FlGetsockname6, ebpf.AttachCgroupInet6GetSockname},
		{"connect4", r.connect.FlConnect4, ebpf.AttachCGroupInet4Connect},
		{"connect6", r.connect.FlConnect6, ebpf.AttachCGroupInet6Connect},
	}
}

func (r *Redirector) attach() error {
	root, err := os.Open(r.opts.CgroupPath)
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	defer root.Close()
	for _, h := range r.hooks() {
		if err := r.hold(hookPin(h.name), h.program, func() (link.Link, error) {
			return attachCgroup(root, h.program, h.attach)
		}); err != nil {
			return fmt.Errorf("attach %s: %w", h.name, err)
		}
	}
	return nil
}

// attachCgroup attaches in front of others, where the kernel knows an order: a
// load balancer ahead of us would hide the service's address.
func attachCgroup(root *os.File, program *ebpf.Program, attach ebpf.AttachType) (link.Link, error) {
	o := link.RawLinkOptions{Target: int(root.Fd()), Program: program, Attach: attach, Flags: flagBefore | flagPreorder}
	l, err := link.AttachRawLink(o)
	if err == nil {
		return l, nil
	}
	return link.AttachCgroup(link.CgroupOptions{Path: root.Name(), Attach: attach, Program: program})
}

// Close lets go of programs, maps and links; the pins keep them alive.
func (r *Redirector) Close() error {
	var errs []error
	r.attached.Lock()
	for name := range r.links {
		r.letGo(name)
	}
	r.attached.Unlock()
	for _, c := range []interface{ Close() error }{&r.connect, &r.sockops, &r.guard, &r.socket} {
		errs = append(errs, c.Close())
	}
	for _, m := range r.tables {
		errs = append(errs, m.Close())
	}
	if r.home != nil {
		errs = append(errs, r.home.Close())
	}
	return errors.Join(errs...)
}

// Forget removes a pod of an earlier run that is not enrolled now.
func (r *Redirector) Forget(cookie uint64) error {
	r.mu.Lock()
	_, enrolled := r.pods[cookie]
	r.mu.Unlock()
	if enrolled {
		return nil
	}
	return r.forget(cookie)
}

// forget takes a pod out of the kernel's tables. What acts on its packets goes
// first, so that none is dropped for a pod that is not in the tables any more.
func (r *Redirector) forget(cookie uint64) error {
	var errs []error
	var device uint32
	var veth bpfobj.ConnectVeth
	var stale []uint32
	for it := r.connect.Guarded.Iterate(); it.Next(&device, &veth); {
		if veth.Cookie == cookie {
			stale = append(stale, device)
		}
	}
	if len(stale) > 0 {
		errs = append(errs, r.onNode(func() error {
			var errs []error
			for _, d := range stale {
				errs = append(errs, r.unguard(d))
			}
			return errors.Join(errs...)
		}))
	}
	_, err := r.detach(steerPin(cookie))
	errs = append(errs, err)
	// The roster last: what is on it is captured by the next agent, and refused.
	for _, m := range []*ebpf.Map{r.connect.Pods, r.connect.Counters, r.connect.Pending, r.connect.Roster} {
		if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Retain removes the pods of earlier runs that are not among the enrolled.
func (r *Redirector) Retain() error {
	var cookie uint64
	var value bpfobj.ConnectPod
	var all []uint64
	for it := r.connect.Pods.Iterate(); it.Next(&cookie, &value); {
		all = append(all, cookie)
	}
	var errs []error
	for _, c := range all {
		errs = append(errs, r.Forget(c))
	}
	return errors.Join(errs...)
}
