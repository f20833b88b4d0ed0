package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/probe"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// childVariable makes the test binary a lab of its own, for tests that kill it.
const childVariable = "FAIRLEAD_TEST_LAB"

// TestMain lets the test binary be what the fairlead binary is to the lab: the
// programs of its pods.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == sandbox.Arg {
		os.Exit(pretendSandbox())
	}
	if fake := fakes[filepath.Base(os.Args[0])]; fake != nil {
		fmt.Fprintln(os.Stderr, fake())
		os.Exit(1)
	}
	if dir := os.Getenv(childVariable); dir != "" {
		err := Run(context.Background(), testOptions(dir, filepath.Base(dir)), func() { fmt.Println("ready") })
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func pretendSandbox() int {
	program, err := sandbox.Enter()
	if err == nil && program.Name == probe.Name {
		err = probe.Serve(os.Stdin, os.Stdout)
	} else if err == nil {
		err = app.Run(context.Background(), program.Name, app.Env{Args: program.Args, Getenv: os.Getenv, Stdout: os.Stdout, Stderr: os.Stderr})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func testOptions(dir, name string) Options {
	return Options{Dir: dir, Name: name, Family: network.Dual, NoMesh: true, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("the lab needs root")
	}
	t.Skip("the lab needs root")
}

// running is a lab in this process.
type running struct {
	*Client
	t    *testing.T
	dir  string
	stop func()
}

// start runs a lab of files and waits until it is ready. name tells labs of one
// test apart.
func start(t *testing.T, name string, files map[string]string, change ...func(*Options)) *running {
	t.Helper()
	needRoot(t)
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("labtest-%d-%s", os.Getpid(), name))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, dir: dir}
	for file, text := range files {
		r.write(file, text)
	}
	o := testOptions(dir, filepath.Base(dir))
	for _, c := range change {
		c(&o)
	}
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, nil))
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- Run(ctx, o, func() { close(ready) }) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the lab ended: %v\n%s", err, log.String())
		}
		if t.Failed() {
			t.Logf("the lab said:\n%s", log.String())
		}
	}
	t.Cleanup(r.stop)
	select {
	case <-ready:
	case err := <-ended:
		stopped = true
		t.Fatalf("the lab did not start: %v\n%s", err, log.String())
	case <-time.After(60 * time.Second):
		t.Fatal("the lab is not ready after a minute")
	}
	var err error
	if r.Client, err = Connect(filepath.Base(dir)); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *running) write(file, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, file), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// in runs a command in a pod.
func (r *running) in(pod string, argv ...string) (string, error) {
	spec, err := r.Entrance(r.t.Context(), pod, "")
	if err != nil {
		return "", err
	}
	spec.Argv = argv
	read, write, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer read.Close()
	cmd, err := sandbox.Start(spec, sandbox.Stdio{Out: write, Err: write}, true)
	_ = write.Close()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	_, _ = out.ReadFrom(read)
	return out.String(), cmd.Wait()
}

// must is in, where failure ends the test.
func (r *running) must(pod string, argv ...string) string {
	r.t.Helper()
	out, err := r.in(pod, argv...)
	if err != nil {
		r.t.Fatalf("%s in %s: %v: %s", strings.Join(argv, " "), pod, err, out)
	}
	return out
}

// until looks at the lab until what it sees is right.
func (r *running) until(what string, right func(View) bool) View {
	r.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		v, err := r.View(r.t.Context())
		if err != nil {
			r.t.Fatal(err)
		}
		if right(v) {
			return v
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not come true; pods: %+v", what, v.Pods)
		}
		pause(r.t.Context(), 20*time.Millisecond)
	}
}

// traces are what is left of a lab.
func traces(t *testing.T, name, dir string) []string {
	t.Helper()
	var out []string
	spaces, err := netns.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range spaces {
		if strings.HasPrefix(s, (place{name}).netnsPrefix()) {
			out = append(out, s)
		}
	}
	cgroup, err := place{name}.cgroup()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{cgroup, (place{name}).dir(), (place{name}).lockFile(), filepath.Join(dir, ".fairlead")} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			out = append(out, path)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), "/"+name+"/") {
		out = append(out, "a mount of "+name)
	}
	processes, err := exec.Command("ps", "-eo", "args").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(processes)) {
		if strings.Contains(line, "sleep "+marker(name)) {
			out = append(out, "a process: "+strings.TrimSpace(line))
		}
	}
	return out
}

// marker is a number of seconds by which a test's own sleeping processes are known.
func marker(name string) string {
	n := uint32(0)
	for _, c := range name {
		n = n*31 + uint32(c)
	}
	return fmt.Sprint(100000 + n%800000)
}
