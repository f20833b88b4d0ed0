package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// worker does what takes long for one pod: it makes the namespace, has the agent
// take it, runs the containers, and takes all of it back. It changes no state; it
// reports to the loop.
type worker struct {
	lab *Lab
	log *slog.Logger
	// p's constant fields only; the rest belongs to the loop.
	p        *pod
	captured bool // wanted, when the pod was made
	cgroup   string
	dir      string // of the pod's own files
	net      *network.Pod
	netns    string
}

func (l *Lab) newWorker(p *pod) *worker {
	return &worker{
		lab: l, p: p, captured: p.captured, log: l.log.With("pod", p.key.String()),
		cgroup: filepath.Join(l.cgroup, "node-"+p.node.name, "pod-"+p.uid), dir: l.place.in("pods", p.uid),
	}
}

// run is a pod's life; cancelling ctx ends it gracefully.
func (w *worker) run(ctx context.Context) {
	defer close(w.p.gone)
	defer w.lab.do(func() { w.lab.forgetPod(w.p) })
	defer w.remove()
	if !w.setUp(ctx) {
		return
	}
	var enrolment sync.WaitGroup
	// The agent lets go of the pod only after its last process has ended.
	end, cancel := context.WithCancel(context.WithoutCancel(ctx))
	settled := make(chan struct{})
	if w.p.node.enrol != nil && !w.p.spec.HostNetwork {
		enrolment.Go(func() { w.enrol(end, settled) })
	} else {
		close(settled)
	}
	select {
	case <-settled:
		w.runContainers(ctx)
	case <-ctx.Done():
	}
	cancel()
	enrolment.Wait()
}

// setUp makes cgroup, files and namespace, and tries again when that fails.
func (w *worker) setUp(ctx context.Context) bool {
	for delay := 200 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		if !w.lab.start.take(ctx) {
			return false
		}
		err := w.make()
		w.lab.start.give()
		if err == nil {
			w.report(func(p *pod) { p.problem = "" })
			return true
		}
		w.problem(err)
		w.remove()
		if !pause(ctx, delay) {
			return false
		}
	}
}

func (w *worker) make() error {
	if err := sandbox.MakeCgroup(w.cgroup); err != nil {
		return err
	}
	if err := w.writeFiles(); err != nil {
		return err
	}
	if err := w.writeVolumes(); err != nil {
		return err
	}
	host := ""
	w.netns = w.p.node.host.NS().Path()
	if !w.p.spec.HostNetwork {
		n, err := w.p.node.host.AddPod(w.lab.space(w.p), w.p.device(), w.p.addrs)
		if err != nil {
			return err
		}
		w.net, w.netns, host = n, n.NS().Path(), n.HostInterface()
	}
	netns := w.netns
	w.report(func(p *pod) { p.netns, p.hostInterface = netns, host })
	return nil
}

// remove takes everything back; what is not there is fine.
func (w *worker) remove() {
	err := sandbox.RemoveCgroup(context.Background(), w.cgroup)
	if w.net != nil {
		if w.lab.ending.Err() != nil {
			w.net.Abandon()
		} else {
			w.net.Close()
		}
		w.net = nil
	}
	if err = errors.Join(err, os.RemoveAll(w.dir)); err != nil {
		w.log.Error("something of the pod is left", "err", err)
	}
}

// report changes the pod in the loop.
func (w *worker) report(change func(*pod)) {
	w.lab.do(func() { change(w.p); w.p.dirty = true })
}

// problem is logged once and stands on the pod until it is over.
func (w *worker) problem(err error) {
	w.report(func(p *pod) {
		if p.problem != err.Error() {
			w.log.Warn(err.Error())
			p.problem = err.Error()
		}
	})
}

// runContainers runs the init containers in turn, then the others until the pod
// ends or they do.
func (w *worker) runContainers(ctx context.Context) {
	for i := range w.p.spec.InitContainers {
		c := w.container(&w.p.spec.InitContainers[i], -1)
		if !c.runInit(ctx) {
			break
		}
	}
	if ctx.Err() != nil {
		return
	}
	w.report(func(p *pod) { p.phase = corev1.PodRunning })
	var all sync.WaitGroup
	codes := make([]int, len(w.p.spec.Containers))
	for i := range w.p.spec.Containers {
		c := w.container(&w.p.spec.Containers[i], i)
		all.Go(func() { codes[i] = c.run(ctx) })
	}
	all.Wait()
	if ctx.Err() != nil {
		return
	}
	// All have ended by themselves, and their policy lets them.
	phase := corev1.PodSucceeded
	for _, code := range codes {
		if code != 0 {
			phase = corev1.PodFailed
		}
	}
	w.report(func(p *pod) { p.phase, p.ready = phase, false })
	<-ctx.Done()
}

// pause waits; false if ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// identity is the pod's SPIFFE ID.
func (p *pod) identity(trustDomain string) string {
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", trustDomain, p.key.Namespace, p.spec.ServiceAccountName)
}
