package source

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A file is complete when its writer has closed it.
func TestCompleteFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("kind: x\n"); err != nil {
		t.Fatal(err)
	}
	if complete(path) {
		t.Error("a file that is being written")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if !complete(path) {
		t.Skip("this file system grants no leases")
	}
	if err := os.Rename(path, filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !complete(filepath.Join(dir, "b.yaml")) || complete(path) || complete(empty) || complete(dir) || complete("") {
		t.Error("renamed, gone, empty, a directory, nothing")
	}
}

// Of a file that is being written nothing is taken before it is complete, whatever else
// has it looked at: its policies would be gone for the moment.
func TestPartsAreNotTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.yaml")
	policy := func(name string, n int) string {
		return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: n}\nspec: {action: DENY, rules: [{to: [{operation: {paths: [/%d]}}]}]}\n---\n", name, n)
	}
	if err := os.WriteFile(path, []byte(policy("x", 1)+policy("y", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if !complete(path) {
		t.Skip("no leases here")
	}
	tr := &tree{roots: []root{{dir: dir}}}
	look := func(grace time.Duration) (scanResult, int) {
		result, err := tr.scan(grace)
		if err != nil {
			t.Fatal(err)
		}
		return result, len(tr.ledger.objects().AuthorizationPolicies)
	}
	if _, n := look(0); n != 2 {
		t.Fatalf("%d policies at first", n)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, policy("x", 2)); err != nil {
		t.Fatal(err)
	}
	if result, n := look(time.Hour); result.changed || !result.pending || n != 2 {
		t.Errorf("in the middle: %+v, %d policies", result, n)
	}
	if result, n := look(0); !result.changed || n != 1 {
		t.Errorf("after a long time: %+v, %d policies", result, n)
	}
	if _, err := io.WriteString(f, policy("y", 2)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if result, n := look(time.Hour); !result.changed || result.pending || n != 2 {
		t.Errorf("at the end: %+v, %d policies", result, n)
	}
}
