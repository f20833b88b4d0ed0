package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// child is a process that does not outlive this one.
type child struct {
	name  string
	cmd   *exec.Cmd
	ended chan error
}

// start runs a binary of the parts under a name, in a directory of its own.
func start(ctx context.Context, binary, name, dir string, env, args []string) (*child, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Args[0] = name
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, ended: make(chan error, 1)}
	go func() { c.ended <- cmd.Wait() }()
	return c, nil
}

// wait is the child as an actor: it is killed when ctx ends, and is not to end before.
func (c *child) wait(ctx context.Context) error {
	select {
	case err := <-c.ended:
		return fmt.Errorf("%s ended: %w", c.name, err)
	case <-ctx.Done():
		_ = c.cmd.Process.Kill()
		<-c.ended
		return nil
	}
}

// write puts a file in one step.
func write(path string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}
