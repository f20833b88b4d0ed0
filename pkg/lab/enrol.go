package lab

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// How an agent is spoken to.
const (
	enrolTimeout = 20 * time.Second
	letGoTimeout = 3 * time.Second
	enrolRetry   = 200 * time.Millisecond
	enrolSlow    = 3 * time.Second
	// withdrawn is how long a pod that leaves the mesh stays captured after the
	// control plane was told: callers elsewhere hear of it in that time.
	withdrawn = time.Second
)

// enrol keeps the agent told of the pod until ctx ends, and then has it let go.
// settled is closed when the pod's first process may start: captured, or not
// meant to be.
func (w *worker) enrol(ctx context.Context, settled chan struct{}) {
	n := w.p.node
	want, is := w.captured, false
	told := false
	restarted := n.agentEpoch.now()
	delay := enrolRetry
	for {
		if !want && !told {
			closeOnce(settled) // nothing to wait for: the agent hears of it in passing
		}
		if is && !want {
			w.report(func(p *pod) { p.announced = false })
			if !pause(ctx, withdrawn) {
				break
			}
		}
		err := w.put(ctx, want)
		if err == nil {
			told, is, delay = true, want, enrolRetry
			w.report(func(p *pod) { p.enrolled, p.announced, p.problem = want, want, "" })
			closeOnce(settled)
			select {
			case <-ctx.Done():
			case want = <-w.p.capture.slot:
			case <-restarted:
			}
		} else if ctx.Err() == nil {
			switch {
			case !want:
			case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
				// The agent is down: the lab says so elsewhere, once.
				w.report(func(p *pod) { p.problem = err.Error() })
			default:
				w.problem(err)
			}
			select {
			case <-ctx.Done():
			case want = <-w.p.capture.slot:
			case <-restarted:
				delay = enrolRetry
			case <-time.After(delay):
				delay = min(2*delay, enrolSlow)
			}
		}
		if ctx.Err() != nil {
			break
		}
		restarted = n.agentEpoch.now()
	}
	w.letGo(context.WithoutCancel(ctx))
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}

// put tells the agent once.
func (w *worker) put(ctx context.Context, captured bool) error {
	n := w.p.node
	n.enrolMu.RLock()
	defer n.enrolMu.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, enrolTimeout)
	defer cancel()
	status, err := n.enrol.Put(ctx, podwatch.Pod{
		UID: w.p.uid, Namespace: w.p.key.Namespace, Name: w.p.key.Name, ServiceAccount: w.p.spec.ServiceAccountName,
		NetNS: w.netns, IPs: w.p.addrs, HostInterface: w.net.HostInterface(), Captured: captured, ProbePorts: probePorts(&w.p.spec),
	})
	if err != nil {
		return err
	}
	if status.State == podwatch.StateFailed {
		return errors.New(status.Error)
	}
	return nil
}

// letGo has the agent forget the pod; an agent that is down hears of it by the
// next snapshot.
func (w *worker) letGo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, letGoTimeout)
	defer cancel()
	if err := w.p.node.enrol.Delete(ctx, w.p.uid); err != nil {
		w.log.Debug("the agent was not told of the pod's end", "err", err)
	}
}

// snapshot tells an agent that has started which pods there are, once it was told
// of each of them: from then on it forgets what else an earlier run left in the
// kernel, and a pod that it has not heard of yet would be let go, open.
func (l *Lab) snapshot(ctx context.Context, n *node) error {
	for {
		done, err := l.trySnapshot(ctx, n)
		if done || ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			l.log.Debug("the agent was not told which pods there are", "node", n.name, "err", err)
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

func (l *Lab) trySnapshot(ctx context.Context, n *node) (bool, error) {
	n.enrolMu.Lock()
	defer n.enrolMu.Unlock()
	var uids, told []string
	err := l.ask(ctx, func() {
		for _, p := range l.pods {
			if p.node == n && !p.spec.HostNetwork {
				uids = append(uids, p.uid)
				if p.enrolled || p.announced { // it may be in the kernel
					told = append(told, p.uid)
				}
			}
		}
	})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, letGoTimeout)
	defer cancel()
	entries, err := n.enrol.List(ctx)
	if err != nil {
		return false, err
	}
	known := map[string]bool{}
	for _, e := range entries {
		known[e.UID] = true
	}
	for _, uid := range told {
		if !known[uid] {
			return false, nil
		}
	}
	slices.Sort(uids)
	err = n.enrol.Snapshot(ctx, uids)
	return err == nil, err
}
