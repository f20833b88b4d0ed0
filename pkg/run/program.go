package run

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Exit codes of [Program].
const (
	exitFailure = 1
	exitUsage   = 2
)

// Program runs a program of that name until it ends or is told to (SIGINT, SIGTERM), and
// ends the process if it failed: with code 2 where [IsUsage] says so, else with 1.
func Program(name string, program func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := program(ctx)
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, name+":", err)
	if IsUsage(err) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage returns err as one of the call: of the command line, or of what it names.
func Usage(err error) error { return usageError{err} }

// IsUsage reports whether err is, or wraps, one of the call.
func IsUsage(err error) bool { return errors.As(err, &usageError{}) }
