package lab

import (
	"context"
	"errors"
	"time"
)

// do sends a function to the loop. After the lab's end it does nothing.
func (l *Lab) do(fn func()) {
	select {
	case l.events <- fn:
	case <-l.stopped:
	}
}

// ask runs fn in the loop, and waits for it and for the turn's end: what fn saw has
// been published by then.
func (l *Lab) ask(ctx context.Context, fn func()) error {
	done := make(chan struct{})
	select {
	case l.events <- func() { fn(); l.asked = append(l.asked, done) }:
	case <-l.stopped:
		return errEnded
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-l.stopped:
		return errEnded
	}
}

// errEnded says that the lab is on its way down.
var errEnded = errors.New("the lab has ended")

// gather is how long the loop collects further events before it acts on them: 500
// pods that come up report thousands.
const gather = 10 * time.Millisecond

// How far a lab is on its way to being ready for the first time.
const (
	notSettled = iota
	isSettling // all is up, the agents may not have heard of it
	settled
)

// loop owns the lab's state. Each turn takes what was reported and then makes the
// world as the state says.
func (l *Lab) loop(ctx context.Context, ready func()) {
	defer close(l.stopped)
	l.next = time.NewTimer(0)
	defer l.next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case fn := <-l.events:
			fn()
			l.collect(ctx)
		case <-l.next.C:
		}
		if ctx.Err() == nil {
			l.reconcile(ctx)
		}
		for _, done := range l.asked {
			close(done)
		}
		l.asked = nil
		if l.settling == notSettled && len(l.notReady()) == 0 {
			l.settling = isSettling
			l.workers.Go(func() {
				l.settle(ctx)
				l.do(func() { l.settling = settled; ready() })
			})
		}
	}
}

func (l *Lab) collect(ctx context.Context) {
	end := time.NewTimer(gather)
	defer end.Stop()
	for {
		select {
		case fn := <-l.events:
			fn()
		case <-end.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// reload takes a changed directory in. What does not decode stays as it was.
func (l *Lab) reload(ctx context.Context, paths []string) {
	res, err := l.dir.Load(paths)
	if err != nil {
		l.log.Error("the directory was not read; the last good state stays", "err", err)
		return
	}
	for _, w := range res.Warnings {
		l.log.Warn(w)
	}
	for _, p := range res.Problems {
		l.log.Error(p.Error())
	}
	l.own = res.Set
	l.set = l.own.With(l.deployed)
	if res.Again > 0 {
		l.workers.Go(func() {
			if pause(ctx, res.Again) {
				l.do(func() { l.reload(ctx, []string{}) })
			}
		})
	}
}

// reloadDeployed takes in what the control plane wants to run.
func (l *Lab) reloadDeployed(ctx context.Context, paths []string) {
	res, err := l.deploy.Load(paths)
	if err != nil {
		l.log.Error("what the control plane deploys was not read; the last good state stays", "err", err)
		return
	}
	for _, p := range res.Problems {
		l.log.Error(p.Error())
	}
	l.deployed = res.Set
	l.set = l.own.With(l.deployed)
	if res.Again > 0 {
		l.workers.Go(func() {
			if pause(ctx, res.Again) {
				l.do(func() { l.reloadDeployed(ctx, []string{}) })
			}
		})
	}
}

// reloadStatus takes in what the control plane wrote. What cannot be read is its
// matter, and is replaced by it.
func (l *Lab) reloadStatus(paths []string) {
	if res, err := l.status.Load(paths); err == nil {
		l.given = res.Set
	}
}

// reconcile makes nodes, services, pods and names as the state says. It is
// idempotent and does nothing that takes long.
func (l *Lab) reconcile(ctx context.Context) {
	l.reconcileNodes(ctx)
	l.reconcileServices()
	l.reconcilePods(ctx)
	l.publish()
}

// notReady says what the lab waits for.
func (l *Lab) notReady() []string {
	var out []string
	if l.controlPlane != nil && !l.controlPlane.up {
		out = append(out, "the control plane: "+l.controlPlane.state)
	}
	for _, n := range l.sortedNodes() {
		if n.agent != nil && !n.agentReady {
			out = append(out, "the agent of "+n.name+": "+n.agent.state)
		}
	}
	for _, n := range l.sortedNodes() {
		if n.rulesWanted != n.rulesApplied {
			out = append(out, "the service rules of "+n.name)
		}
	}
	for _, p := range l.sortedPods() {
		if !p.ready && !p.done() && !p.deleting {
			out = append(out, "pod "+p.key.String()+": "+p.reason())
		}
	}
	return append(out, l.missingPods()...)
}
