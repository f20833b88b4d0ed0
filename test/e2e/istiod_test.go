package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// istiodVariable, where it is set, has a real istiod on a real API server control every
// lab (test/istiod). What then differs stands behind [!istiod] in the scenarios, and
// with its reason in docs/interop.md.
const istiodVariable = "FAIRLEAD_ISTIOD"

// tokensVariable names the directory of what API servers issue for labs.
const tokensVariable = "FAIRLEAD_TOKENS"

// tokens is that directory, once istiod controls a lab.
var tokens string

func forgetTokens() {
	if tokens != "" {
		_ = os.RemoveAll(tokens)
	}
}

// underIstiod reports whether istiod controls the labs.
func underIstiod() bool { return os.Getenv(istiodVariable) != "" }

var besideIstiod sync.Once

// withIstiod makes a directory of the product's binaries in which test/istiod is the
// control plane.
func withIstiod(t *testing.T) {
	t.Helper()
	besideIstiod.Do(func() {
		var err error
		if tokens, err = os.MkdirTemp("", "e2e-tokens-"); err != nil {
			t.Fatal(err)
		}
		if err := os.Setenv(tokensVariable, tokens); err != nil { //nolint:usetesting // for all tests
			t.Fatal(err)
		}
		dir := filepath.Join(root, ".cache", "interop")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"fairlead", "node-agent", "waypoint"} {
			to := filepath.Join(dir, name)
			if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
			if err := os.Link(filepath.Join(binaries, name), to); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "control-plane"), "./test/istiod")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build test/istiod: %v\n%s", err, out)
		}
		binaries = dir
	})
}

// upArgs are what `lab up` needs further for a lab.
func upArgs(lab string) ([]string, error) {
	if !underIstiod() {
		return nil, nil
	}
	dir := filepath.Join(tokens, lab)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory of tokens: %w", err)
	}
	return []string{"--token-dir", dir, "--wait", "150s"}, nil
}

// condition is what stands in brackets before a command of the scenarios.
func condition(name string) (bool, error) {
	if name == "istiod" {
		return underIstiod(), nil
	}
	return false, fmt.Errorf("no condition %q", name)
}
