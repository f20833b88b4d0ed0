package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/handover"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// tenure is the time in which this agent owns its node: from when the one before it
// has let go until the next one serves. What one agent alone may have is held within.
type tenure struct {
	// Constant after begin.
	lockPath, socket string
	log              *slog.Logger
	taker            *handover.Taker // of the agent before; nil without one
	manager          *podwatch.Manager
	pods             *enroller
	ready            *admin.Readiness

	// handing is set while another agent's programs may be in force.
	handing atomic.Bool
	// over ends with the tenure.
	over context.Context
	end  context.CancelFunc

	mu   sync.Mutex
	lock *handover.Lock
	held sync.WaitGroup // what runs within
}

// begin takes the lock, or asks the agent that has it for its pods' listeners. One
// that does not answer is waited for: it may be of a version that hands nothing over.
func begin(ctx context.Context, enrolSocket string, log *slog.Logger) (*tenure, error) {
	dir := filepath.Dir(enrolSocket)
	base := filepath.Base(enrolSocket)
	t := &tenure{lockPath: filepath.Join(dir, base+".lock"), socket: filepath.Join(dir, base+".handover"), log: log}
	t.over, t.end = context.WithCancel(context.Background())
	var err error
	if t.lock, err = handover.TryLock(t.lockPath); !errors.Is(err, handover.ErrHeld) {
		return t, err
	}
	if t.taker, err = handover.Take(t.socket); err == nil {
		log.Info("taking over from the agent that owns the node", "pods", len(t.taker.Listeners))
		return t, nil
	}
	log.Warn("another agent owns the node and hands nothing over: waiting for its end", "err", err)
	t.lock, err = handover.WaitLock(ctx, t.lockPath)
	return t, err
}

// inherited are the listeners of the agent before.
func (t *tenure) inherited() map[uint64][]*os.File {
	if t.taker == nil {
		return nil
	}
	return t.taker.Listeners
}

// takeoverPatience is how long the next agent waits for the control plane before it
// serves: the one before serves meanwhile, and knows what the disk may not.
const takeoverPatience = 10 * time.Second

// endPatience is how long an agent that has not handed the node over may take to end.
const endPatience = 30 * time.Second

// prepare waits until this agent knows as much as the one that it takes over from.
func (t *tenure) prepare(ctx context.Context, arrived <-chan struct{}) {
	if t.taker == nil {
		return
	}
	timer := time.NewTimer(takeoverPatience)
	defer timer.Stop()
	select {
	case <-arrived:
	case <-timer.C:
		t.log.Warn("the control plane has not answered: taking over with the last state")
	case <-ctx.Done():
	}
}

// own is called when all pods of the last run are served: it returns when no other
// agent owns the node. handed is false where that one may have gone on for a while.
func (t *tenure) own(ctx context.Context) (handed bool, err error) {
	if t.taker == nil {
		return true, nil
	}
	if err := t.taker.Serving(); err != nil {
		t.log.Warn("the agent before has not said that it has let go", "err", err)
		// It has ended, or it goes on: then this one tries again from the beginning.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, endPatience)
		defer cancel()
	} else {
		handed = true
	}
	lock, err := handover.WaitLock(ctx, t.lockPath)
	if err != nil {
		return false, err
	}
	t.mu.Lock()
	t.lock = lock
	t.mu.Unlock()
	t.log.Info("this agent owns the node")
	return handed, nil
}

// remove takes what the tenure had on disk away; no agent comes after this one.
func (t *tenure) remove() error {
	var errs []error
	for _, path := range []string{t.socket, t.lockPath} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// within returns an actor that runs until the tenure is over, and then does nothing
// until it is stopped.
func (t *tenure) within(run func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := context.AfterFunc(t.over, cancel)
		defer stop()
		t.held.Add(1)
		err := run(inner)
		t.held.Done()
		if t.isOver() && err == nil {
			<-ctx.Done()
		}
		return err
	}
}

func (t *tenure) isOver() bool { return t.over.Err() != nil }

// give waits for the next agent.
func (t *tenure) give(ctx context.Context) error {
	err := handover.Give(ctx, t.socket, t)
	if err == nil {
		<-ctx.Done()
	}
	return err
}

// Freeze implements [handover.Owner].
func (t *tenure) Freeze() ([]handover.Sockets, error) {
	t.log.Info("the next agent asks for the node")
	t.handing.Store(true)
	t.manager.Freeze()
	return t.pods.hand()
}

// Thaw implements [handover.Owner].
func (t *tenure) Thaw() {
	t.log.Warn("the next agent has failed: this one goes on")
	if err := errors.Join(t.pods.redirector.Reassert(), t.pods.redirector.Own()); err != nil {
		t.log.Error("programs of the agent that failed may be in force", "err", err)
	}
	t.handing.Store(false)
	t.manager.Thaw(false)
}

// End implements [handover.Owner].
func (t *tenure) End() {
	t.ready.Set("another agent has taken over", true)
	t.end()
	t.manager.Thaw(true)
	t.held.Wait()
	t.pods.retire()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.lock.Unlock(); err != nil {
		t.log.Warn("lock of the node", "err", err)
	}
	t.log.Info("another agent owns the node: connections that are left go on until this one is stopped")
}
