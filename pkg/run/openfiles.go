package run

import (
	"fmt"
	"syscall"
)

// What is asked for, and what is too little for a program that carries connections.
const openFiles, fewOpenFiles = 1 << 20, 1 << 16

// RaiseOpenFiles raises the limit of open files as far as it may. An error says that
// it is low, and how low.
func RaiseOpenFiles() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: max(limit.Max, openFiles)})
	if err == nil || limit.Max >= fewOpenFiles {
		return nil // the runtime has raised it to the maximum already
	}
	return fmt.Errorf("at most %d open files, two are needed for a connection: %w", limit.Max, err)
}
