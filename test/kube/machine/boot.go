package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Boot makes the rest of the node's surroundings and becomes its init: it returns
// only an error. It needs to be process 1 of a PID namespace, in mount, UTS and IPC
// namespaces that are the node's.
func Boot(path string) error {
	m, err := Read(path)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return fmt.Errorf("node %s: process %d, not 1: the cluster's harness starts this in namespaces of its own", m.Name, os.Getpid())
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("node %s: %w", m.Name, err)
	}
	// unshare is of a thread; the program that this thread executes is all of it.
	runtime.LockOSThread() //nolint:forbidigo // it never runs other goroutines: it becomes another program
	if err := m.enterCgroups(); err != nil {
		return fmt.Errorf("node %s: %w", m.Name, err)
	}
	if err := m.mount(); err != nil {
		return fmt.Errorf("node %s: %w", m.Name, err)
	}
	if err := unix.Sethostname([]byte(m.Name)); err != nil {
		return fmt.Errorf("node %s: host name: %w", m.Name, err)
	}
	return fmt.Errorf("node %s: execute %s: %w", m.Name, self, unix.Exec(self, []string{self, "init", path}, os.Environ()))
}

// enterCgroups makes the node's cgroups the roots of what is seen inside.
func (m *Machine) enterCgroups() error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		// 0 is the process that writes.
		if err := os.WriteFile(filepath.Join(cgroups, h, m.Cgroup, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("enter cgroup: %w", err)
		}
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	return nil
}

// mounting is one mount: it makes its target where there is none.
type mounting struct {
	source, target, kind, data string
	flags                      uintptr
}

func (m *Machine) mount() error {
	groups, err := cgroupMounts()
	if err != nil {
		return err
	}
	all := []mounting{
		{target: "/", flags: unix.MS_REC | unix.MS_PRIVATE},
		{"proc", "/proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"tmpfs", "/run", "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV},
		m.private("etc"), m.private("opt"), m.private("var"),
		// A sysfs shows the devices of the network namespace it was mounted in.
		{"sysfs", "/sys", "sysfs", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"bpf", "/sys/fs/bpf", "bpf", "mode=700", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	}
	all = append(all, groups...)
	for _, o := range all {
		if err := o.do(); err != nil {
			return err
		}
	}
	if err := sealSysctls(); err != nil {
		return err
	}
	return mounting{target: "/", flags: unix.MS_REC | unix.MS_SHARED}.do()
}

func (o mounting) do() error {
	if err := os.MkdirAll(o.target, 0o755); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if err := unix.Mount(o.source, o.target, o.kind, o.flags, o.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", o.kind, o.target, err)
	}
	return nil
}

// private lets the node write to a directory of this machine without changing it.
func (m *Machine) private(name string) mounting {
	upper, work := filepath.Join(m.Dir, name, "upper"), filepath.Join(m.Dir, name, "work")
	return mounting{"overlay", "/" + name, "overlay", "lowerdir=/" + name + ",upperdir=" + upper + ",workdir=" + work, 0}
}

// cgroupMounts are the machine's hierarchies mounted anew, which shows the node's part of each.
func cgroupMounts() ([]mounting, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	var found []mounting
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) < 4 || !strings.HasPrefix(f[1], cgroups) || (f[2] != "cgroup" && f[2] != "cgroup2") {
			continue
		}
		o := mounting{source: f[2], target: f[1], kind: f[2]}
		if f[2] == "cgroup" {
			o.data = controllers(f[3])
		}
		found = append(found, o)
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below " + cgroups)
	}
	if found[0].target != cgroups {
		top := mounting{"tmpfs", cgroups, "tmpfs", "mode=755", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC}
		found = append([]mounting{top}, found...)
	}
	return found, nil
}

// controllers are the mount options that say which hierarchy it is.
func controllers(options string) string {
	var kept []string
	for o := range strings.SplitSeq(options, ",") {
		switch {
		case o == "rw" || o == "ro" || strings.HasSuffix(o, "atime") || strings.HasPrefix(o, "no") || o == "xattr" || strings.HasPrefix(o, "release_agent="):
		case strings.HasPrefix(o, "name="):
			kept = append(kept, "none", o)
		default:
			kept = append(kept, o)
		}
	}
	return strings.Join(kept, ",")
}

// sealSysctls puts files over the kernel's settings that a kubelet changes for the
// whole machine, with the values that it wants to find.
func sealSysctls() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join("/run/sysctl", name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return fmt.Errorf("seal %s: %w", name, err)
		}
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return fmt.Errorf("seal %s: %w", name, err)
		}
		if err := unix.Mount(file, filepath.Join("/proc/sys", name), "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("seal %s: %w", name, err)
		}
	}
	return nil
}
