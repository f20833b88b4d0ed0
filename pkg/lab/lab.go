package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
	"github.com/fairlead-mesh/fairlead/pkg/lab/token"
)

// Lab is a running cluster. Its state belongs to one goroutine, [Lab.loop];
// everything else sends it functions.
type Lab struct {
	// Constant after Run began.
	opts    Options
	log     *slog.Logger
	logFile *os.File // what log says, also after the terminal is gone
	place   place
	cgroup  string
	self    string // path of this binary
	signer  *token.Signer
	events  chan func()
	asked   []chan struct{} // who waits for the turn's end
	stopped chan struct{}   // closed when the loop takes no more events
	ending  context.Context // ends when the lab does
	stop    context.CancelFunc
	start   *semaphore // bounds how many pods start at once

	// workers are all goroutines; Run waits for them.
	workers sync.WaitGroup

	// Owned by the loop.
	dir          *objects.Dir
	set          *objects.Set // of the user's objects and those that are deployed
	own          *objects.Set // the user's alone
	deploy       *objects.Dir // what the control plane wants to run
	deployed     *objects.Set
	status       *objects.Dir // what the control plane writes
	given        *objects.Set // of it, the addresses of ServiceEntries
	derived      *objects.Derived
	fabric       *network.Fabric
	controlHost  *network.Host
	controlPlane *daemon // or nil
	nodes        map[string]*node
	nodeSlots    map[int]bool
	pods         map[string]*pod // by uid
	services     map[objects.Key]*service
	pools        []*network.Pool // of service addresses, one per family
	settling     int
	next         *time.Timer // or nil: when reconcile should look again
}

// startAtOnce bounds how many pods are being set up at the same time: more only
// wait for the kernel's one lock on devices.
const startAtOnce = 8

// Run makes the cluster, keeps it as its directory says, and returns when ctx
// ends or `lab down` asks for it, with nothing left behind. It calls ready once,
// when all pods are up for the first time.
func Run(ctx context.Context, o Options, ready func()) error {
	if err := o.complete(); err != nil {
		return err
	}
	p := place{o.Name}
	lock, err := p.lock()
	if errors.Is(err, errRunning) {
		return fmt.Errorf("%w: fairlead lab down --name %s ends it, --name gives this one another", err, o.Name)
	}
	if err != nil {
		return err
	}
	defer p.release(lock)
	// What an earlier one of this name left, and on the way out what this one made.
	if err := clean(ctx, p); err != nil {
		return err
	}
	l := &Lab{
		opts: o, log: o.Logger, place: p, events: make(chan func(), 256), stopped: make(chan struct{}), start: newSemaphore(startAtOnce),
		nodes: map[string]*node{}, nodeSlots: map[int]bool{}, pods: map[string]*pod{}, services: map[objects.Key]*service{},
		dir: objects.NewDir(o.Dir, checkObject), status: objects.NewDir(statusDir(o.Dir), nil), given: &objects.Set{},
		deploy: objects.NewDir(deployDir(o.Dir), checkObject), deployed: objects.NewSet(),
	}
	if err := l.first(); err != nil {
		return err
	}
	ctx, l.stop = context.WithCancel(ctx)
	l.ending = ctx
	defer l.stop()
	err = l.prepare()
	if err == nil {
		err = l.live(ctx, ready)
	}
	l.close()
	return errors.Join(err, clean(context.WithoutCancel(ctx), p))
}

// first reads the directory before anything is made: what is wrong there is
// said, and nothing has to be taken back.
func (l *Lab) first() error {
	res, err := l.dir.Load(nil)
	if err != nil {
		return err
	}
	for _, w := range res.Warnings {
		l.log.Warn(w)
	}
	if err := errors.Join(res.Problems...); err != nil {
		return err
	}
	l.own = res.Set
	l.set = l.own.With(l.deployed)
	return nil
}

// prepare makes what is there before the first node.
func (l *Lab) prepare() error {
	if err := l.place.make(); err != nil {
		return err
	}
	logFile, err := openLog(LogFile(l.opts.Name, "lab"))
	if err != nil {
		return err
	}
	l.logFile = logFile
	l.log = slog.New(slog.NewMultiHandler(l.opts.Logger.Handler(), slog.NewTextHandler(logFile, nil)))
	if l.self, err = os.Executable(); err != nil {
		return err
	}
	if l.cgroup, err = l.place.cgroup(); err != nil {
		return err
	}
	if err := l.record(); err != nil {
		return err
	}
	if err := sandbox.MakeCgroup(l.cgroup); err != nil {
		return err
	}
	if l.derived, err = objects.NewDerived(derivedDir(l.opts.Dir)); err != nil {
		return err
	}
	for _, prefix := range l.opts.Family.ServicePrefixes() {
		l.pools = append(l.pools, network.NewPool(prefix))
	}
	if l.fabric, err = network.NewFabric(l.place.netnsPrefix() + "fabric"); err != nil {
		return err
	}
	l.controlHost, err = l.fabric.AddHost(l.place.netnsPrefix()+"control-plane", l.opts.Family.ControlPlane())
	if err != nil || l.opts.NoMesh {
		return err
	}
	return l.prepareTokens()
}

// live runs the actors until ctx ends or one of them fails.
func (l *Lab) live(ctx context.Context, ready func()) error {
	failed := make(chan error, 4)
	actor := func(run func(context.Context) error) {
		l.workers.Go(func() {
			if err := run(ctx); err != nil {
				failed <- err
				l.stop()
			}
		})
	}
	api, err := l.listenAPI()
	if err != nil {
		return err
	}
	actor(api.serve)
	if err := l.startControlPlane(ctx, actor); err != nil {
		return err
	}
	actor(func(ctx context.Context) error {
		return objects.Watch(ctx, l.opts.Dir, func(paths []string) { l.do(func() { l.reload(ctx, paths) }) })
	})
	if l.controlPlane != nil {
		for _, dir := range []string{statusDir(l.opts.Dir), deployDir(l.opts.Dir)} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
		actor(func(ctx context.Context) error {
			return objects.Watch(ctx, deployDir(l.opts.Dir), func(paths []string) { l.do(func() { l.reloadDeployed(ctx, paths) }) })
		})
		actor(func(ctx context.Context) error {
			return objects.Watch(ctx, statusDir(l.opts.Dir), func(paths []string) { l.do(func() { l.reloadStatus(paths) }) })
		})
	}
	actor(l.housekeeping)
	l.loop(ctx, ready)
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// record writes what Clean needs.
func (l *Lab) record() error {
	r := record{Name: l.opts.Name, Dir: l.opts.Dir, PID: os.Getpid(), Binaries: l.opts.Binaries}
	for name := range l.nodes {
		r.Nodes = append(r.Nodes, name)
	}
	slices.Sort(r.Nodes)
	return l.place.write(r)
}

// close ends what Run started, in reverse. Pods' processes and the mesh are
// killed: nobody waits for them.
func (l *Lab) close() {
	l.stop()
	ended := make(chan struct{})
	go func() { l.workers.Wait(); close(ended) }()
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for waiting := true; waiting; {
		if l.cgroup != "" {
			if err := sandbox.RemoveCgroup(context.Background(), l.cgroup); err != nil {
				l.log.Error("processes did not end", "err", err)
			}
		}
		select {
		case <-ended:
			waiting = false
		case <-again.C: // one was just being started
		}
	}
	for _, n := range l.nodes {
		n.host.Close()
	}
	if l.controlHost != nil {
		l.controlHost.Close()
	}
	if l.fabric != nil {
		l.fabric.Close()
	}
	if l.logFile != nil {
		_ = l.logFile.Close()
	}
}

// controlPlaneAddr is where the nodes reach the control plane.
func (l *Lab) controlPlaneAddr() netip.AddrPort {
	return netip.AddrPortFrom(l.opts.Family.ControlPlane()[0].Addr(), controlPlanePort)
}

// semaphore bounds how many do something at once.
type semaphore struct{ slots chan struct{} }

func newSemaphore(n int) *semaphore { return &semaphore{make(chan struct{}, n)} }

// take waits for a slot; false if ctx ended first.
func (s *semaphore) take(ctx context.Context) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (s *semaphore) give() { <-s.slots }
