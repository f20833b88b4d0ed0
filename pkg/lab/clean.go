package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// pinRoot is where agents pin their programs, one directory per instance.
const pinRoot = "/sys/fs/bpf/fairlead"

// purgeTimeout bounds how long an agent's own clean-up may take.
const purgeTimeout = 20 * time.Second

// Clean removes everything that a lab left which is not running any more:
// processes, pinned programs, namespaces, mounts, files. Nothing left is no error.
func Clean(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	p := place{name}
	lock, err := p.lock()
	if err != nil {
		return err
	}
	defer p.release(lock)
	return clean(ctx, p)
}

// clean does it for who holds the lock. Processes go first, so that nothing makes
// new things behind it; programs go before the namespaces that they are attached to.
func clean(ctx context.Context, p place) error {
	r, err := p.read()
	var errs []error
	keep := func(err error) {
		if err != nil {
			errs = append(errs, err)
		}
	}
	keep(err)
	if cgroup, err := p.cgroup(); err == nil {
		keep(sandbox.RemoveCgroup(ctx, cgroup))
		_ = os.Remove(filepath.Dir(cgroup)) // while other labs run it is not empty
	}
	keep(purge(ctx, p, r))
	keep(network.Purge(p.netnsPrefix()))
	keep(p.unmake())
	if r.Dir != "" {
		keep(forget(r.Dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after lab %s: %w", p.name, err)
	}
	return nil
}

// purge removes the agents' pinned programs, by the agents' own command, and by
// hand what that leaves.
func purge(ctx context.Context, p place, r record) error {
	entries, err := os.ReadDir(pinRoot)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, purgeTimeout)
	defer cancel()
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), p.instance("")) {
			continue
		}
		if r.Binaries != "" {
			// Its failure leaves pins, and those are removed next.
			_ = exec.CommandContext(ctx, filepath.Join(r.Binaries, "node-agent"), "purge", "--instance", e.Name()).Run()
		}
		err = errors.Join(err, os.RemoveAll(filepath.Join(pinRoot, e.Name())))
	}
	return err
}

// derivedDir, statusDir and deployDir lie beside the user's YAML: what the lab makes,
// what the control plane says, and what it wants to run.
func derivedDir(dir string) string { return filepath.Join(dir, ".fairlead", "objects") }
func statusDir(dir string) string  { return filepath.Join(dir, ".fairlead", "status") }
func deployDir(dir string) string  { return filepath.Join(dir, ".fairlead", "deployed") }

// forget removes what the lab and its control plane wrote beside the YAML.
func forget(dir string) error {
	err := errors.Join(os.RemoveAll(derivedDir(dir)), os.RemoveAll(statusDir(dir)), os.RemoveAll(deployDir(dir)))
	if parent := filepath.Dir(derivedDir(dir)); err == nil {
		if left, rerr := os.ReadDir(parent); rerr == nil && len(left) == 0 {
			err = os.Remove(parent)
		}
	}
	return err
}

// Labs are the names of labs that run, or that left something.
func Labs() (running, left []string, err error) {
	entries, err := os.ReadDir(placesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		lock, err := place{e.Name()}.lock()
		if errors.Is(err, errRunning) {
			running = append(running, e.Name())
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		place{e.Name()}.release(lock)
		left = append(left, e.Name())
	}
	return running, left, nil
}
