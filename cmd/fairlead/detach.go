package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// parentVariable tells a lab of the background on which descriptor who started it
// waits for word.
const parentVariable = "FAIRLEAD_LAB_PARENT"

const readyWord = "ready"

// parent is who waits for a lab of the background.
type parent struct{ pipe *os.File }

// detachedParent is nil in the foreground.
func detachedParent() *parent {
	fd, err := strconv.Atoi(os.Getenv(parentVariable))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(parentVariable) // not for the lab's own children
	syscall.CloseOnExec(fd)
	return &parent{os.NewFile(uintptr(fd), "parent")}
}

// ready tells once that all is well; who waited may be gone. What the process
// says from now on goes to the lab's own log.
func (p *parent) ready(logFile string) {
	if f, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err == nil {
		_ = unix.Dup3(int(f.Fd()), 2, 0)
		_ = f.Close()
	}
	_, _ = fmt.Fprintln(p.pipe, readyWord)
	_ = p.pipe.Close()
}

// failed tells why there is no lab.
func (p *parent) failed(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(p.pipe, err)
	}
	_ = p.pipe.Close()
}

// upDetached starts the lab in the background and waits until it is ready.
func upDetached(ctx context.Context, f upFlags, out io.Writer) error {
	began := time.Now()
	name, err := f.name()
	if err != nil {
		return err
	}
	log, err := os.CreateTemp("", "fairlead-lab-*.log")
	if err != nil {
		return err
	}
	defer log.Close()
	defer os.Remove(log.Name()) // by then the lab writes to its own directory
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe", backgroundArgs(os.Args[1:])...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.Env = append(os.Environ(), parentVariable+"=3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		return fmt.Errorf("start the lab: %w", err)
	}
	word := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(bufio.NewReader(r))
		word <- strings.TrimSpace(string(text))
	}()
	select {
	case text := <-word:
		if text == readyWord {
			fmt.Fprintf(out, "lab %s is ready after %.1f s\n", name, time.Since(began).Seconds())
			return nil
		}
		_ = cmd.Wait()
		if text == "" {
			said, _ := os.ReadFile(log.Name())
			text = "the lab ended without a word\n" + string(said)
		}
		return errors.New(text)
	case <-time.After(f.wait):
		if f.wait == 0 {
			return cmd.Process.Release()
		}
		return notReady(ctx, name, f.wait)
	case <-ctx.Done():
		// Ctrl-C while it is being made means: not any more.
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		return ctx.Err()
	}
}

// backgroundArgs are this call's arguments without --detach.
func backgroundArgs(args []string) []string {
	var out []string
	for _, a := range args {
		if a == "--detach" || a == "-d" || strings.HasPrefix(a, "--detach=") {
			continue
		}
		out = append(out, a)
	}
	return out
}
