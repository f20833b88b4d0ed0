package hostproc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

const uid = "0a1b2c3d-1111-2222-3333-444455556666"

// here is this machine's, with the test for the node's first process.
var here = &Proc{path: "/proc", node: "self"}

func TestUIDOfCgroups(t *testing.T) {
	under := strings.ReplaceAll(uid, "-", "_")
	for name, c := range map[string]struct{ cgroup, want string }{
		"v2, systemd":               {"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + under + ".slice/cri-containerd-abc.scope\n", uid},
		"v2, systemd, guaranteed":   {"0::/kubepods.slice/kubepods-pod" + under + ".slice/crio-abc.scope\n", uid},
		"v2, systemd, CRI-O":        {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/crio-abc.scope/container\n", uid},
		"v2, systemd, its watcher":  {"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/crio-conmon-abc.scope\n", uid},
		"v2, cgroupfs, CRI-O":       {"0::/kubepods/burstable/pod" + uid + "/crio-abc\n", uid},
		"v2, a node in a container": {"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" + under + ".slice/cri-containerd-abc.scope\n", uid},
		"v1, systemd, CRI-O":        {"4:memory:/kubepods.slice/kubepods-pod" + under + ".slice/crio-abc.scope\n1:name=systemd:/kubepods.slice/kubepods-pod" + under + ".slice/crio-abc.scope\n", uid},
		"v2, cgroupfs":              {"0::/kubepods/besteffort/pod" + uid + "/abc\n", uid},
		"v2, from a namespace":      {"0::/../../pod" + uid + "/abc\n", uid},
		"v1, cgroupfs":              {"9:name=systemd:/n1/kubepods/pod" + uid + "/abc\n4:memory:/n1/kubepods/pod" + uid + "/abc\n0::/\n", uid},
		"v1, systemd, containerd":   {"4:memory:/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:abc\n", uid},
		"v1, its own inner cgroups": {"4:memory:/kubepods/pod" + uid + "/abc/inner/pod\n", uid},
		"static pod":                {"0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/abc\n", "0123456789abcdef0123456789abcdef"},
		"no pod":                    {"0::/system.slice/kubelet.service\n", ""},
		"a name like one":           {"0::/user.slice/pod" + uid + "x/abc\n", ""},
		"hierarchies disagree":      {"4:memory:/kubepods/pod" + uid + "/a\n5:pids:/kubepods/podffffffff-1111-2222-3333-444455556666/a\n", ""},
		"empty":                     {"", ""},
		"uid of the wrong alphabet": {"0::/kubepods/pod0A1B2C3D-1111-2222-3333-444455556666/abc\n", ""},
	} {
		if got := uidOf([]byte(c.cgroup)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func FuzzUIDOf(f *testing.F) {
	f.Add([]byte("0::/kubepods/pod" + uid + "/abc\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := uidOf(b); got != "" && !strings.Contains(strings.ReplaceAll(string(b), "_", "-"), "pod"+got) {
			t.Errorf("%q is not in %q", got, b)
		}
	})
}

// process starts a program in a cgroup of that name and a network namespace, the
// node's for nil.
func process(t *testing.T, group string, ns *netns.NS, name string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	root := root(t)
	dir := filepath.Join(root, group)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	handle, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer handle.Close()
	program := filepath.Join(t.TempDir(), name)
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(handle.Fd()), Pdeathsig: syscall.SIGKILL}
	start := cmd.Start
	if ns != nil {
		start = func() error { return ns.Start(cmd) }
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for d := dir; d != root; d = filepath.Dir(d) {
			_ = os.Remove(d)
		}
	})
	return cmd
}

func root(t *testing.T) string {
	for _, dir := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(filepath.Join(dir, "cgroup.procs")); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup v2")
	return ""
}

// The sandbox's namespace is the pod's, not one that a container made later.
func TestFindsTheSandboxsNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var spaces []*netns.NS
	for i := range 2 {
		name := fmt.Sprintf("fl-hp%d-%d", os.Getpid(), i)
		ns, err := netns.New(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close(); _ = netns.Delete(name) })
		spaces = append(spaces, ns)
	}
	group := fmt.Sprintf("fl-hp%d/pod%s", os.Getpid(), uid)
	p := here
	if _, err := p.Find(uid); !errors.Is(err, ErrNoProcess) {
		t.Fatalf("before: %v", err)
	}
	// CRI-O's watcher of a container is in the pod's cgroup and the node's network.
	process(t, group+"/crio-conmon-1", nil, "conmon")
	first := process(t, group+"/sandbox", spaces[0], "pause")
	process(t, group+"/app", spaces[1], "app")
	found, err := p.Find(uid)
	if err != nil {
		t.Fatal(err)
	}
	want, err := spaces[0].Cookie()
	if err != nil {
		t.Fatal(err)
	}
	if found.Cookie != want || found.Path != "/proc/"+strconv.Itoa(first.Process.Pid)+"/ns/net" {
		t.Errorf("%+v, want cookie %d", found, want)
	}
	if _, err := p.Find("ffffffff-1111-2222-3333-444455556666"); !errors.Is(err, ErrNoProcess) {
		t.Errorf("another pod: %v", err)
	}
}

func TestPodInTheNodesNetworkIsRefused(t *testing.T) {
	other := "0b1b2c3d-1111-2222-3333-444455556666"
	process(t, fmt.Sprintf("fl-hpn%d/pod%s", os.Getpid(), other), nil, "host")
	if _, err := here.Find(other); err == nil || errors.Is(err, ErrNoProcess) {
		t.Errorf("%v", err)
	}
}

func TestFindsTheKubeletsCgroup(t *testing.T) {
	group := fmt.Sprintf("fl-hpk%d/kubelet.service", os.Getpid())
	// One in a pod, of the same name, is none.
	process(t, fmt.Sprintf("fl-hpk%d/pod%s", os.Getpid(), "0c1b2c3d-1111-2222-3333-444455556666"), nil, "k0s")
	process(t, group, nil, "k0s")
	saved := kubelets
	kubelets = []string{"k0s"}
	defer func() { kubelets = saved }()
	got, err := here.KubeletCgroup("/root")
	if err != nil || got != "/root/"+group {
		t.Errorf("%q %v", got, err)
	}
	kubelets = []string{"no-such-kubelet"}
	if _, err := here.KubeletCgroup("/root"); err == nil || !strings.Contains(err.Error(), "--kubelet-cgroup") {
		t.Errorf("%v", err)
	}
}
