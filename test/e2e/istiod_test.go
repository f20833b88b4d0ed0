package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
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
	parts := ""
	for _, name := range []string{"control-plane", "pilot-discovery", "istio"} {
		parts = filepath.Dir(part(t, name))
	}
	besideIstiod.Do(func() {
		var err error
		if tokens, err = os.MkdirTemp("", "e2e-tokens-"); err != nil {
			t.Fatal(err)
		}
		for variable, value := range map[string]string{tokensVariable: tokens, "FAIRLEAD_PARTS": parts} {
			if err := os.Setenv(variable, value); err != nil { //nolint:usetesting // for all tests
				t.Fatal(err)
			}
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

// istiodDiffers are the tour's stops that istiod has our waypoint do otherwise, or not
// at all, each with why. docs/interop.md has them for users.
var istiodDiffers = map[string]string{
	"caller's namespace":                "istiod compares sourceNamespace with the waypoint's own namespace",
	"caller's labels":                   "istiod compares sourceLabels with the waypoint's own labels",
	"fields of a rule and of a backend": "istiod passes a percent sign on, which begins a command in Envoy's formats: Envoy refuses the update, we refuse the requests of the route's port",
	"a session":                         "istiod does not read sessionPersistence",
	"a consumer's route":                "istiod gives a waypoint no routes of its consumers",
	"filters of single backends":        "istiod passes on of a backend's filters those of header fields alone",
	"a rule that is wrong, and one whose filter is not served": "istiod leaves the whole route out",
	"connections by who calls":                                 "istiod compares sourceNamespace and sourceLabels with the waypoint's own",
	"a consumer's TCPRoute, and what it is lent":               "istiod gives a waypoint no routes of its consumers",
	"requests alone are denied":                                "istiod denies all bytes where a DENY rule names what only requests have",
	"who asks":                                                 "istiod has the waypoint pass x-forwarded-for on as it came",
}

// TestInteropDocumentNamesWhatDiffers holds docs/interop.md to the table of stops and to
// the scenarios' conditions.
func TestInteropDocumentNamesWhatDiffers(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "interop.md"))
	if err != nil {
		t.Fatal(err)
	}
	for name := range istiodDiffers {
		if !slices.ContainsFunc(tourStops, func(s stop) bool { return s.name == name }) {
			t.Errorf("there is no stop %q", name)
		}
		if !strings.Contains(string(text), "| "+name+" |") {
			t.Errorf("docs/interop.md has no row for the stop %q", name)
		}
	}
	scenarios, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scenarios {
		scenario, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(path), ".txtar")
		if differs, said := strings.Contains(string(scenario), "istiod]"), strings.Contains(string(text), "| "+name+" |"); differs != said {
			t.Errorf("scenario %s differs under istiod: %v; docs/interop.md has a row for it: %v", name, differs, said)
		}
	}
}
