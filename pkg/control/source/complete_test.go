package source

import (
	"os"
	"path/filepath"
	"testing"
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
