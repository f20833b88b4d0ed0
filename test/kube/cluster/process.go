package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// process is a part that runs. Its pid file holds the time it started as well: a
// number alone may by now be someone else's.
type process struct {
	name, log string
	pidFile   string
	cmd       *exec.Cmd
	ended     chan struct{}
	lifeline  io.Closer
}

// start runs cmd in ns (nil: here) with its output in dir/name.log. Unless it is
// detached it holds the reading end of a pipe on standard input, and is expected to
// end when that closes.
func start(dir, name string, cmd *exec.Cmd, ns *netns.NS, detached bool) (*process, error) {
	p := &process{name: name, cmd: cmd, log: filepath.Join(dir, name+".log"), pidFile: filepath.Join(dir, name+".pid"), ended: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true // a Ctrl-C is for the test, which then ends the parts in order
	if !detached {
		if p.lifeline, err = cmd.StdinPipe(); err != nil {
			return nil, fmt.Errorf("lifeline of %s: %w", name, err)
		}
	}
	if ns != nil {
		err = ns.Start(cmd)
	} else {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		close(p.ended)
	}()
	born, err := birth(cmd.Process.Pid)
	if err != nil {
		return nil, p.failed(err)
	}
	if err := os.WriteFile(p.pidFile, fmt.Appendf(nil, "%d %s\n", cmd.Process.Pid, born), 0o600); err != nil {
		p.kill()
		return nil, fmt.Errorf("pid of %s: %w", name, err)
	}
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
	_ = os.Remove(p.pidFile)
	if p.lifeline != nil {
		_ = p.lifeline.Close()
	}
}

// failed is err with the last lines the part wrote.
func (p *process) failed(err error) error {
	return fmt.Errorf("%s: %w\n%s (%s)", p.name, err, tail(p.log), p.log)
}

// wait polls until ready says so; it gives up when the part ends or ctx does.
func (p *process) wait(ctx context.Context, ready func() error) error {
	tick := time.NewTicker(200 * time.Millisecond) // kubectl is a process of its own
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.failed(errors.New("ended before it was ready"))
		case <-ctx.Done():
			return p.failed(fmt.Errorf("%w; last: %w", ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// tail is the last 2 KiB of a file.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2048):])
}

// birth is when a process started, in the kernel's clock ticks since boot (proc(5), stat).
func birth(pid int) (string, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return "", fmt.Errorf("no such process: %w", err)
	}
	// The name, in parentheses, may hold anything; the fields after it may not.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return fields[19], nil
}

// killLeftover ends the process of a pid file, if it is still the one that was started.
func killLeftover(pidFile string) error {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("leftover: %w", err)
	}
	number, born, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("%s holds no process: %w", pidFile, err)
	}
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if now, err := birth(pid); err != nil || now != born || zombie(pid) {
			return nil
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
		select {
		case <-tick.C:
		case <-deadline.C:
			return fmt.Errorf("process %d of %s does not end", pid, pidFile)
		}
	}
}

// zombie reports a process that has ended and whose parent has not looked.
func zombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && strings.HasPrefix(string(b[strings.LastIndexByte(string(b), ')')+1:]), " Z")
}
