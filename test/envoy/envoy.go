// Package envoy finds the Envoy that tests ask, which install.sh beside it fetches.
// Tests alone import it.
package envoy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// Path is the Envoy at $ENVOY, or the one that install.sh put into $ENVOY_INSTALL_DIR or
// .cache/envoy of the repository. The error says how to get it.
func Path() (string, error) {
	path := os.Getenv("ENVOY")
	if path == "" {
		dir := os.Getenv("ENVOY_INSTALL_DIR")
		if dir == "" {
			root, err := repository()
			if err != nil {
				return "", err
			}
			dir = filepath.Join(root, ".cache", "envoy")
		}
		path = filepath.Join(dir, "envoy")
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no Envoy (%w): run test/envoy/install.sh, or set ENVOY", err)
	}
	return filepath.Abs(path)
}

// repository is the directory above with go.mod.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if filepath.Dir(dir) == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// Need is Path for a test. Without an Envoy the test is skipped, but where $CI is set: it fails.
func Need(t testing.TB) string {
	t.Helper()
	path, err := Path()
	switch {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
	return path
}
