// Package e2e runs the scenarios of testdata: each is a promise to a user, a
// cluster as a directory of YAML, and the commands that show the promise kept.
// They run on pkg/lab: real network namespaces, the real kernel, and the
// product's own binaries.
//
// A command that begins with `*` is tried again until it succeeds. The commands
// are listed in commands.go.
package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// root is the repository, and binaries where `make build` puts the product.
var root, binaries string

func TestMain(m *testing.M) {
	var err error
	if root, err = filepath.Abs("../.."); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = filepath.Join(root, "bin")
	if underIstiod() {
		retryFor *= 3 // a cluster of its own is made for each lab
	}
	code := m.Run()
	forgetTokens()
	os.Exit(code)
}

func TestScenarios(t *testing.T) {
	needRoot(t)
	build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		Setup:               setup,
		Cmds:                commands,
		Condition:           condition,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the scenarios need root")
	}
	t.Skip("the scenarios need root: network namespaces and BPF")
}

// build makes the binaries under test from the tree under test, so that a
// scenario never runs against yesterday's.
func build(t *testing.T) {
	t.Helper()
	cmd := exec.Command("make", "-s", "-C", root, "build")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	if underIstiod() {
		withIstiod(t)
	}
	sweep.Do(func() { takeDownOrphans(t) })
}

var sweep sync.Once

// takeDownOrphans ends the labs of runs that were killed before they could.
func takeDownOrphans(t *testing.T) {
	t.Helper()
	places, err := filepath.Glob("/run/fairlead/lab/e2e-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range places {
		name := filepath.Base(place)
		if ownerLives(name) {
			continue
		}
		if out, err := exec.Command(filepath.Join(binaries, "fairlead"), "lab", "down", "--name", name).CombinedOutput(); err != nil {
			t.Errorf("lab %s of a run that was killed: %v\n%s", name, err, out)
		}
	}
}

// ownerLives reports whether one of the numbers in a lab's name is the process of
// a run of these tests.
func ownerLives(name string) bool {
	for part := range strings.SplitSeq(name, "-") {
		if _, err := strconv.Atoi(part); err != nil {
			continue
		}
		if cmdline, err := os.ReadFile("/proc/" + part + "/cmdline"); err == nil && strings.Contains(string(cmdline), "e2e.test") {
			return true
		}
	}
	return false
}

// setup gives each scenario a lab name of its own, and takes the lab down at the
// end whatever happened.
func setup(env *testscript.Env) error {
	name := fmt.Sprintf("e2e-%s-%d", strings.TrimPrefix(filepath.Base(env.WorkDir), "script-"), os.Getpid())
	env.Setenv("LAB", name)
	env.Setenv("PATH", binaries+":"+os.Getenv("PATH"))
	env.Setenv("HOME", env.WorkDir)
	env.Defer(func() {
		if f, ok := env.T().(interface{ Failed() bool }); ok && f.Failed() {
			for _, part := range []string{"agent/n1", "agent/n2", "control-plane", "waypoint"} {
				logs, _ := exec.Command(filepath.Join(binaries, "fairlead"), "lab", "logs", "--name", name, part).CombinedOutput()
				env.T().Log("--- " + part + "\n" + lastLines(string(logs), 40))
			}
		}
		down := exec.Command(filepath.Join(binaries, "fairlead"), "lab", "down", "--name", name)
		if out, err := down.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "lab down %s: %v\n%s", name, err, out)
		}
	})
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
