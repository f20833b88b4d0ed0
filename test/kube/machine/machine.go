// Package machine is a node from the inside: what the program that becomes its
// process 1 is told, and what that program does. It runs where the network, PID,
// mount, UTS and IPC namespaces are already the node's own, gives the node cgroups, /proc, bpffs,
// /etc, /opt, /var and /run of its own, and keeps containerd, kubelet and kube-proxy running.
//
// test/kube/cluster writes the configuration, test/kube/cmd/node is the program.
package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// File is the name of the configuration in the node's directory.
const File = "machine.json"

// Lifeline is the environment variable that makes the node end when its standard
// input does.
const Lifeline = "FAIRLEAD_NODE_LIFELINE"

// Machine is a node's configuration.
type Machine struct {
	// Name is the host name.
	Name string
	// Dir is the node's directory: it keeps its files over a reboot.
	Dir string
	// Cgroup is the cgroup, in each hierarchy of the machine, that is the root inside.
	Cgroup string
	// Programs are started in this order and again when they end.
	Programs []Program
	// Images are imported as soon as containerd answers, before the kubelet starts.
	Images []string
}

// Program is one that the node keeps running.
type Program struct {
	Name string
	Args []string
	// Slice is its cgroup v2 inside the node.
	Slice string
	// Socket, where not empty, is waited for before the next program is started.
	Socket string
}

const cgroups = "/sys/fs/cgroup"

// Prepare makes the node's directory and its cgroup in every hierarchy. A cpuset
// without processors takes no process, and a new one has none.
func (m *Machine) Prepare() error {
	for _, dir := range []string{"etc", "opt", "var"} {
		for _, part := range []string{"upper", "work"} {
			if err := os.MkdirAll(filepath.Join(m.Dir, dir, part), 0o755); err != nil {
				return fmt.Errorf("prepare: %w", err)
			}
		}
	}
	hierarchies, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := os.MkdirAll(filepath.Join(cgroups, h, m.Cgroup), 0o755); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		all, err := os.ReadFile(filepath.Join(cgroups, "cpuset", f))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(cgroups, "cpuset", m.Cgroup, f), all, 0); err != nil {
			return fmt.Errorf("cgroup: %w", err)
		}
	}
	return nil
}

// hierarchies are the directories of the cgroup hierarchies below /sys/fs/cgroup;
// "" where cgroup v2 alone is mounted on it.
func hierarchies() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	var found []string
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if len(f) > 3 && (f[2] == "cgroup" || f[2] == "cgroup2") && strings.HasPrefix(f[1], cgroups) {
			found = append(found, strings.TrimPrefix(strings.TrimPrefix(f[1], cgroups), "/"))
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted below " + cgroups)
	}
	return found, nil
}

// Read reads a configuration.
func Read(path string) (*Machine, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	m := new(Machine)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("node: %s: %w", path, err)
	}
	return m, nil
}
