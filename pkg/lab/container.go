package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// Backoff of what ends by itself, and after which time of running it begins anew.
const (
	minBackoff   = 250 * time.Millisecond
	maxBackoff   = 10 * time.Second
	steadyAfter  = 10 * time.Second
	defaultGrace = 30 * time.Second
)

// container supervises one container of a pod.
type container struct {
	w     *worker
	spec  *corev1.Container
	index int // in the pod's list, or -1 for an init container
}

func (w *worker) container(spec *corev1.Container, index int) *container {
	return &container{w: w, spec: spec, index: index}
}

// report changes the container's state in the loop.
func (c *container) report(change func(*containerState)) {
	if c.index < 0 {
		return
	}
	c.w.report(func(p *pod) {
		change(&p.containers[c.index])
		p.ready = p.phase == corev1.PodRunning && !p.deleting
		for _, s := range p.containers {
			p.ready = p.ready && s.Ready
		}
	})
}

// run starts the container again and again, as the pod's restart policy says,
// and returns its last exit code.
func (c *container) run(ctx context.Context) int {
	backoff := minBackoff
	for {
		began := time.Now()
		code, err := c.once(ctx)
		if ctx.Err() != nil {
			return code
		}
		policy := c.w.p.spec.RestartPolicy
		again := policy == corev1.RestartPolicyAlways || policy == "" || (policy == corev1.RestartPolicyOnFailure && (code != 0 || err != nil))
		message := fmt.Sprintf("ended with code %d", code)
		if err != nil {
			message = err.Error()
		}
		if again {
			c.w.log.Warn("a container ended; it is started again", "container", c.spec.Name, "why", message, "in", backoff)
		}
		c.report(func(s *containerState) {
			s.Running, s.Ready, s.PID, s.Ended, s.Message = false, false, 0, code, message
			if again {
				s.Restarts++
			}
		})
		if !again {
			return code
		}
		if time.Since(began) > steadyAfter {
			backoff = minBackoff
		}
		if !pause(ctx, backoff) {
			return code
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// runInit runs an init container until it succeeds; false if the pod ended first.
func (c *container) runInit(ctx context.Context) bool {
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		code, err := c.once(ctx)
		if err == nil && code == 0 {
			return ctx.Err() == nil
		}
		if err == nil {
			err = fmt.Errorf("ended with code %d", code)
		}
		c.w.problem(fmt.Errorf("init container %s: %w", c.spec.Name, err))
		if !pause(ctx, backoff) {
			return false
		}
	}
}

// once runs the container's process to its end.
func (c *container) once(ctx context.Context) (int, error) {
	spec, err := c.w.process(c.spec)
	if err != nil {
		return -1, err
	}
	path := LogFile(c.w.lab.opts.Name, filepath.Join("pod", c.w.p.key.Namespace, c.w.p.key.Name, c.spec.Name))
	out, err := openLog(path)
	if err != nil {
		return -1, err
	}
	cmd, err := sandbox.Start(spec, sandbox.Stdio{Out: out, Err: out}, true)
	_ = out.Close()
	if err != nil {
		return -1, err
	}
	probing := c.spec.ReadinessProbe != nil
	c.report(func(s *containerState) {
		s.Running, s.Ready, s.PID, s.Started, s.Message = true, !probing, cmd.Process.Pid, metav1.NewTime(time.Now().Truncate(time.Second)), ""
		if probing {
			s.Message = "was not probed yet"
		}
	})
	alive, died := context.WithCancel(ctx)
	var probes sync.WaitGroup
	if probing {
		probes.Go(func() { c.probe(alive) })
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		err = c.terminate(cmd, ended)
	}
	died()
	probes.Wait()
	return exitCode(err)
}

// terminate asks the process to end, and after the grace period makes it.
func (c *container) terminate(cmd *exec.Cmd, ended <-chan error) error {
	grace := defaultGrace
	if s := c.w.p.spec.TerminationGracePeriodSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	if h := c.spec.Lifecycle; h != nil && h.PreStop != nil && h.PreStop.Sleep != nil {
		select {
		case err := <-ended:
			return err
		case <-time.After(min(time.Duration(h.PreStop.Sleep.Seconds)*time.Second, grace)):
		}
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // its session is its own
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case err := <-ended:
		return err
	case <-t.C:
	}
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return <-ended
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return -1, err
}

// process is the sandbox of a container's program.
func (w *worker) process(c *corev1.Container) (sandbox.Spec, error) {
	spec := w.surroundings()
	spec.Env, spec.Dir = w.environment(c), c.WorkingDir
	env := map[string]string{}
	for _, e := range spec.Env {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	expanded := func(list []string) []string {
		out := make([]string, len(list))
		for i, s := range list {
			out[i] = expand(s, env)
		}
		return out
	}
	if len(c.Command) > 0 {
		spec.Argv = append(expanded(c.Command), expanded(c.Args)...)
		return spec, nil
	}
	if binary := w.lab.product(c.Image); binary != "" {
		spec.Argv = append([]string{binary}, expanded(c.Args)...)
		return spec, nil
	}
	name, err := app.ForImage(c.Image)
	if err != nil {
		return spec, err
	}
	spec.Program = &sandbox.Program{Name: name, Args: expanded(c.Args)}
	return spec, nil
}

// openLog opens a file that is only ever written to at its end.
func openLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}
