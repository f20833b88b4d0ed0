package h2

import (
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// h2spec is the list of RFC 7540 and RFC 7541 that other implementations are
// measured with. What RFC 9113 changed has its own tests.
const h2spec = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"

func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program of another module")
	}
	bin := t.TempDir()
	install := exec.Command("go", "install", h2spec)
	install.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=-mod=mod")
	install.Dir = bin
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("h2spec cannot be had: %v\n%s", err, out)
	}
	// It wants an answer that takes some DATA frames.
	address := serve(t, Config{MaxFrame: minFrameSize}, func(s *Stream) {
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			} else if err != nil {
				return
			}
		}
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, More)
		_ = s.Send(data(100), End)
	})
	host, port, _ := net.SplitHostPort(address)
	out, err := exec.Command(bin+"/h2spec", "--strict", "-h", host, "-p", port, "-o", "10").CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 failed") {
		t.Errorf("%v\n%s", err, out)
	}
}
