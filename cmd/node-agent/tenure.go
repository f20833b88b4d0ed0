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

	"github.com/prometheus/client_golang/prometheus"

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
	patience         time.Duration   // with the next agent
	owned            chan struct{}   // closed when this agent owns the node
	manager          *podwatch.Manager
	pods             *enroller
	ready            *admin.Readiness
	mended           prometheus.Counter // pins that were missing

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
	t.owned = make(chan struct{})
	t.mended = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "fairlead_pins_mended_total", Help: "Pins that were missing in the BPF file system, and were made again.",
	})
	t.over, t.end = context.WithCancel(context.Background())
	var err error
	if t.lock, err = handover.TryLock(t.lockPath); !errors.Is(err, handover.ErrHeld) {
		close(t.owned)
		return t, err
	}
	if t.taker, err = handover.Take(t.socket); err == nil {
		log.Info("taking over from the agent that owns the node", "pods", len(t.taker.Listeners))
		return t, nil
	}
	log.Warn("another agent owns the node and hands nothing over: waiting for its end", "err", err)
	t.lock, err = handover.WaitLock(ctx, t.lockPath)
	close(t.owned)
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

// endPatience is how long an agent that does not say whether it hands the node over may
// take to end.
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

// own is called when this agent is ready for all pods of the last run: it returns when no
// other owns the node, and fails where one goes on. Nothing was touched that is another's,
// so that one may be as late as it likes.
func (t *tenure) own(ctx context.Context) error {
	if t.taker == nil {
		return nil
	}
	if err := t.taker.Serving(); errors.Is(err, handover.ErrKept) {
		return err // this one tries again from the beginning
	} else if err != nil {
		t.log.Warn("the agent before has not said that it has let go", "err", err)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, endPatience)
		defer cancel()
	}
	lock, err := handover.WaitLock(ctx, t.lockPath)
	if err != nil {
		return err
	}
	t.mu.Lock()
	t.lock = lock
	t.mu.Unlock()
	close(t.owned)
	t.log.Info("this agent owns the node")
	return nil
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

// isSole reports whether this agent owns the node, and none asks for it: one of an
// earlier version has its own programs in force while it does.
func (t *tenure) isSole() bool {
	select {
	case <-t.owned:
		return !t.isOver() && !t.handing.Load()
	default:
		return false
	}
}

// give waits for the next agent.
func (t *tenure) give(ctx context.Context) error {
	err := handover.Give(ctx, t.socket, t.patience, t)
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
	// The next one finds what is attached by its pins.
	if err := t.mend(); err != nil {
		t.log.Error("the next agent may not find what is attached", "err", err)
	}
	return t.pods.hand()
}

// mend pins again what somebody has wiped, and says so. It returns what is in the way.
func (t *tenure) mend() error {
	n, err := t.pods.redirector.Mend()
	t.mended.Add(float64(n))
	if n > 0 {
		t.log.Error("the BPF file system was wiped or mounted anew under the agent: what was missing is pinned again, and nothing was let through", "pins", n)
	}
	return err
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
