package oci

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// containerd starts one of its own and returns ctr, bound to it.
func containerd(t *testing.T) func(args ...string) string {
	t.Helper()
	for _, program := range []string{"containerd", "ctr"} {
		if _, err := exec.LookPath(program); err != nil || os.Geteuid() != 0 {
			t.Skipf("needs %s, as root", program)
		}
	}
	// Outside /tmp's long test names: a socket's path has 107 bytes.
	dir, err := os.MkdirTemp("", "ctrd-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "c.sock")
	config := "version = 2\nroot = \"" + dir + "/root\"\nstate = \"" + dir + "/state\"\n" +
		"disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.internal.v1.opt\"]\n" +
		"[grpc]\n  address = \"" + socket + "\"\n"
	if err := os.WriteFile(dir+"/config.toml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	daemon := exec.Command("containerd", "--config", dir+"/config.toml")
	daemon.Stdout, daemon.Stderr = &log, &log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		_ = daemon.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for exec.CommandContext(ctx, "ctr", "--address", socket, "--connect-timeout", "1s", "version").Run() != nil {
		if ctx.Err() != nil {
			t.Fatal("containerd does not answer")
		}
	}
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ctr", append([]string{"--address", socket, "-n", "k8s.io"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ctr %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
}

func TestContainerdImports(t *testing.T) {
	ctr := containerd(t)
	file := filepath.Join(t.TempDir(), "app.tar")
	second := example("another")
	second.Name = "localhost/pause:1"
	if err := WriteFile(file, example("program"), second); err != nil {
		t.Fatal(err)
	}
	ctr("images", "import", file)
	names := ctr("images", "ls", "-q")
	for _, name := range []string{"localhost/fairlead/app:v1", "localhost/pause:1"} {
		if !strings.Contains(names, name+"\n") {
			t.Errorf("%s is not among the images:\n%s", name, names)
		}
	}
	at := t.TempDir()
	ctr("images", "mount", "--platform", "linux/"+runtime.GOARCH, "localhost/fairlead/app:v1", at)
	t.Cleanup(func() { ctr("images", "unmount", "--rm", at) })
	if got, err := os.ReadFile(at + "/usr/local/bin/app"); err != nil || string(got) != "program" {
		t.Errorf("the program inside: %q, %v", got, err)
	}
}
