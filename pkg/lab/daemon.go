package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// daemon is one of the mesh's own processes. It is started again when it dies,
// unless it was stopped on purpose.
type daemon struct {
	// Constant after it was made.
	name    string // "control-plane", "agent/n1"
	lab     *Lab
	log     *slog.Logger
	spec    sandbox.Spec
	logFile string
	// prepared waits until it makes sense to start, or is nil.
	prepared func(context.Context) error
	// answers waits until the process serves, or is nil.
	answers func(context.Context) error
	// onUp and onDown are called in the loop.
	onUp, onDown func()
	orders       *mailbox[bool] // whether it should run

	// Owned by the loop.
	pid   int
	up    bool
	state string
	runs  int
}

// run keeps the process alive until ctx ends.
func (d *daemon) run(ctx context.Context) {
	backoff := minBackoff
	for ctx.Err() == nil {
		began := time.Now()
		err := d.once(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case on := <-d.orders.slot:
			if !on && !d.stoppedUntilStarted(ctx) {
				return
			}
			backoff = minBackoff
			continue
		default:
		}
		d.report(func() { d.pid, d.up, d.state = 0, false, fmt.Sprintf("ended (%v), is started again", err); d.onDown() })
		d.log.Warn("a process of the mesh ended; it is started again", "process", d.name, "why", err, "in", backoff)
		if time.Since(began) > steadyAfter {
			backoff = minBackoff
		}
		select {
		case <-ctx.Done():
			return
		case on := <-d.orders.slot:
			if !on && !d.stoppedUntilStarted(ctx) {
				return
			}
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// stoppedUntilStarted waits for the order to start; false if ctx ended first.
func (d *daemon) stoppedUntilStarted(ctx context.Context) bool {
	d.report(func() { d.pid, d.up, d.state = 0, false, "stopped"; d.onDown() })
	for {
		select {
		case <-ctx.Done():
			return false
		case on := <-d.orders.slot:
			if on {
				return true
			}
		}
	}
}

// once runs the process to its end.
func (d *daemon) once(ctx context.Context) error {
	if d.prepared != nil {
		d.report(func() { d.state = "waits for the control plane" })
		if err := d.prepared(ctx); err != nil {
			return err
		}
	}
	if err := sandbox.MakeCgroup(d.spec.Cgroup); err != nil {
		return err
	}
	out, err := openLog(d.logFile)
	if err != nil {
		return err
	}
	cmd, err := sandbox.Start(d.spec, sandbox.Stdio{Out: out, Err: out}, true)
	_ = out.Close()
	if err != nil {
		return err
	}
	alive, died := context.WithCancel(ctx)
	defer died()
	// The lab, or the node, goes: nothing that the process could still save matters.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	d.report(func() { d.pid, d.state, d.runs = cmd.Process.Pid, "is starting", d.runs+1 })
	d.lab.workers.Go(func() {
		if d.answers == nil || d.answers(alive) == nil {
			d.report(func() {
				if d.pid == cmd.Process.Pid && alive.Err() == nil {
					d.up, d.state = true, "running"
					d.onUp()
				}
			})
		}
	})
	if _, err = exitCode(cmd.Wait()); err != nil {
		return err
	}
	return fmt.Errorf("%s", cmd.ProcessState)
}

func (d *daemon) report(change func()) { d.lab.do(change) }

// kill ends the process by a signal, and it stays down. Called in the loop.
func (d *daemon) kill(sig syscall.Signal) error {
	d.orders.put(false)
	if d.pid == 0 {
		return nil
	}
	if err := syscall.Kill(d.pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", d.name, err)
	}
	return nil
}

// resume has a process that was killed started. Called in the loop.
func (d *daemon) resume() { d.orders.put(true) }

// waitForFile waits until there is a file that is not empty.
func waitForFile(ctx context.Context, path string) error {
	for {
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}
