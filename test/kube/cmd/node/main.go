// Command node is what the nodes of a cluster for tests begin with: their process
// 1, the process that keeps a part beside the control plane, and, under the name
// pause, the process that holds a pod's namespaces.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/fairlead-mesh/fairlead/test/kube/machine"
)

func main() {
	if err := run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case filepath.Base(args[0]) == "pause":
		pause()
		return nil
	case len(args) == 3 && args[1] == "init":
		return machine.Init(args[2])
	case len(args) > 2 && args[1] == "run":
		return keep(args[2:])
	case len(args) == 2:
		return machine.Boot(args[1])
	}
	return errors.New("usage: node FILE, node run PROGRAM [ARGUMENT...]")
}

// keep runs a program that ends when this process does.
func keep(args []string) error {
	if os.Getenv(machine.Lifeline) != "" {
		go machine.EndWith(os.Stdin)
	}
	runtime.LockOSThread() //nolint:forbidigo // Pdeathsig is sent when this thread ends
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// pause waits for the end of its pod. It is process 1 there, so orphans become its own.
func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			return
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}
