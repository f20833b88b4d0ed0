// Package h2spec runs the list of RFC 7540 and RFC 7541 that other implementations of
// HTTP/2 are measured with. Tests of servers may import it. What RFC 9113 changed has
// tests of its own.
package h2spec

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	module = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
	// summary is the last line where all that there is was done and held.
	summary = "146 tests, 146 passed, 0 skipped, 0 failed"
)

// Run holds the list against a server without TLS, whose answers must take some DATA
// frames: 100 bytes and more.
func Run(t *testing.T, address string) {
	t.Helper()
	bin := t.TempDir()
	install := exec.Command("go", "install", module)
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	install.Dir = bin
	if out, err := install.CombinedOutput(); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatalf("h2spec cannot be had: %v\n%s", err, out)
		}
		t.Skipf("h2spec cannot be had: %v\n%s", err, out)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "h2spec"), "--strict", "-h", host, "-p", port, "-o", "10").CombinedOutput()
	if err != nil || !strings.Contains(string(out), summary) {
		t.Errorf("not %q: %v\n%s", summary, err, out)
	}
}
