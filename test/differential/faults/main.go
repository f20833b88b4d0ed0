// Faults seeds the faults of *.patch into the waypoint, one at a time, and has the test
// of test/differential that each patch names find it: `caught by: TestName` in the
// patch's head. It ends with 1 when one was missed. Names of faults as arguments seed
// those alone.
//
// A patch changes no file of the tree: the build sees the changed one in its place.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/test/envoy"
)

// atOnce is how many faults are looked for at the same time: one is built while another
// one's test waits.
const atOnce = 2

// patience is how long a test may take.
const patience = 3 * time.Minute

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	missed, err := run(ctx, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "faults:", err)
		os.Exit(2)
	}
	if missed > 0 {
		os.Exit(1)
	}
}

// seeding is what all faults have in common.
type seeding struct {
	root, work, suite, envoy string
}

func run(ctx context.Context, names []string) (missed int, err error) {
	begun := time.Now()
	top, err := command(ctx, "", "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return 0, fmt.Errorf("the top of the tree: %w", err)
	}
	s := seeding{root: strings.TrimSpace(string(top))}
	if s.envoy, err = envoy.Path(); err != nil {
		return 0, err
	}
	if s.work, err = os.MkdirTemp("", "faults"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(s.work)
	if len(names) == 0 {
		all, err := filepath.Glob(filepath.Join(s.root, "test/differential/faults/*.patch"))
		if err != nil || len(all) == 0 {
			return 0, fmt.Errorf("no faults: %w", err)
		}
		for _, f := range all {
			names = append(names, strings.TrimSuffix(filepath.Base(f), ".patch"))
		}
	}
	s.suite = filepath.Join(s.work, "suite")
	if out, err := command(ctx, s.root, "go", "test", "-c", "-o", s.suite, "./test/differential").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("the tests do not build: %w\n%s", err, out)
	}
	results := make([]error, len(names))
	slots := make(chan struct{}, atOnce)
	var work sync.WaitGroup
	for i, name := range names {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		work.Go(func() {
			defer func() { <-slots }()
			results[i] = s.seed(ctx, name)
		})
	}
	work.Wait()
	if ctx.Err() != nil {
		return 0, errors.New("interrupted")
	}
	for _, err := range results {
		if errors.Is(err, errMissed) {
			missed++
		} else if err != nil {
			return missed, err
		}
	}
	fmt.Printf("faults: %d seeded, %d missed, in %s\n", len(names), missed, time.Since(begun).Round(time.Second))
	return missed, nil
}

var (
	errMissed = errors.New("missed")
	caughtBy  = regexp.MustCompile(`(?m)^caught by: (\w+)$`)
	changed   = regexp.MustCompile(`(?m)^\+\+\+ b/(.+)$`)
)

// seed builds a waypoint with a fault and has its test look for it.
func (s *seeding) seed(ctx context.Context, name string) error {
	begun := time.Now()
	patch, err := os.ReadFile(filepath.Join(s.root, "test/differential/faults", name+".patch"))
	if err != nil {
		return err
	}
	by := caughtBy.FindSubmatch(patch)
	if by == nil {
		return fmt.Errorf("%s: no line `caught by: TestName`", name)
	}
	test, waypoint := string(by[1]), filepath.Join(s.work, name+".waypoint")
	defer os.Remove(waypoint)
	overlay, err := s.apply(ctx, name, patch)
	if err != nil {
		return fmt.Errorf("%s does not apply, make it anew: %w", name, err)
	}
	build := command(ctx, s.root, "go", "build", "-trimpath", "-tags", "grpcnotrace", "-overlay", overlay, "-o", waypoint, "./cmd/waypoint")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%s does not build: %w\n%s", name, err, out)
	}
	look := command(ctx, filepath.Join(s.root, "test/differential"), s.suite, "-test.run", "^"+test+"$", "-test.failfast", "-test.timeout", patience.String())
	look.Env = append(os.Environ(), "DIFFERENTIAL=1", "DIFFERENTIAL_WAYPOINT="+waypoint, "ENVOY="+s.envoy)
	out, err := look.CombinedOutput()
	took := time.Since(begun).Round(time.Second)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		fmt.Printf("MISSED  %s (%s, %s)\n", name, test, took)
		return errMissed
	case !bytes.Contains(out, []byte("--- FAIL: "+test)) || bytes.Contains(out, []byte("panic: test timed out")):
		return fmt.Errorf("%s: %s does not run: %w\n%s", name, test, err, out)
	}
	fmt.Printf("caught  %s (%s, %s)\n", name, test, took)
	return nil
}

// apply patches copies of the files that a patch changes; it returns what has the build
// read them (go help build, -overlay).
func (s *seeding) apply(ctx context.Context, name string, patch []byte) (overlay string, err error) {
	dir := filepath.Join(s.work, name)
	replace := map[string]string{}
	for _, m := range changed.FindAllSubmatch(patch, -1) {
		file := string(m[1])
		from, to := filepath.Join(s.root, file), filepath.Join(dir, file)
		text, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return "", err
		}
		replace[from] = to
	}
	apply := command(ctx, dir, "git", "apply", "--whitespace=nowarn", "-")
	apply.Stdin = bytes.NewReader(patch)
	apply.Env = append(os.Environ(), "GIT_CEILING_DIRECTORIES="+s.work)
	if out, err := apply.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// command ends with its context, and with this process.
func command(ctx context.Context, dir, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}
