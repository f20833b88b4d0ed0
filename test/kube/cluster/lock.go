package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lock keeps a name for the process that has a cluster of it, for as long as that
// lives: someone else's tests may use the same names at the same time.
func lock(name string) (*os.File, error) {
	if err := os.MkdirAll(root(), 0o755); err != nil {
		return nil, fmt.Errorf("clusters: %w", err)
	}
	path := filepath.Join(root(), "."+name+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("clusters: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := os.ReadFile(path)
		_ = f.Close()
		return nil, fmt.Errorf("the cluster name %s is in use by process %s: %w", name, strings.TrimSpace(string(holder)), errBusy)
	}
	_ = f.Truncate(0)
	_, _ = f.WriteAt(fmt.Appendf(nil, "%d\n", os.Getpid()), 0)
	return f, nil
}

// errBusy means that a live process holds a cluster of the name.
var errBusy = errors.New("it is busy")

// waitLock waits for a name until ctx ends.
func waitLock(ctx context.Context, name string) (*os.File, error) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := lock(name)
		if err == nil || !errors.Is(err, errBusy) {
			return f, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, err
		}
	}
}
