package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Down ends the cluster of a name and removes everything that carries it: its
// processes, network namespaces, cgroups and directory. It needs nothing of what
// the starter knew, so it also clears up after one that was killed. A cluster
// that is not there is no error; one whose process lives is.
func Down(name string) error {
	held, err := lock(name)
	if err != nil {
		return err
	}
	defer held.Close()
	return down(name)
}

func down(name string) error {
	if !plain.MatchString(name) {
		return fmt.Errorf("cluster name %q: at most 8 small letters and digits, a letter first", name)
	}
	dir := filepath.Join(root(), name)
	pids, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	// The nodes first: the API server would otherwise be asked by kubelets meanwhile.
	slices.Reverse(pids)
	var failed []error
	for _, p := range pids {
		failed = append(failed, killLeftover(p))
	}
	spaces, err := netns.List()
	failed = append(failed, err)
	for _, s := range spaces {
		if strings.HasPrefix(s, prefix(name)) {
			failed = append(failed, netns.Delete(s))
		}
	}
	failed = append(failed, emptied(name))
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("cluster %s: %w", name, err)
	}
	return nil
}

// prefix begins the names of everything a cluster makes outside its directory.
func prefix(name string) string { return "kube-" + name + "-" }

// emptied removes the nodes' cgroups; the kernel takes a moment to let go of those
// whose processes it has just ended.
func emptied(name string) error {
	deadline := time.After(10 * time.Second)
	for {
		err := removeCgroups(name)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-deadline:
			return err
		}
	}
}

// removeCgroups removes the nodes' cgroups in every hierarchy, the inner ones first.
func removeCgroups(name string) error {
	tops, err := filepath.Glob("/sys/fs/cgroup/*/" + prefix(name) + "*")
	if err != nil {
		return fmt.Errorf("cgroups of %s: %w", name, err)
	}
	if alone, err := filepath.Glob("/sys/fs/cgroup/" + prefix(name) + "*"); err == nil {
		tops = append(tops, alone...)
	}
	var failed []error
	for _, top := range tops {
		var all []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				all = append(all, path)
			}
			return nil
		})
		failed = append(failed, err)
		slices.Reverse(all)
		for _, dir := range all {
			if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = append(failed, fmt.Errorf("cgroup: %w", err))
			}
		}
	}
	return errors.Join(failed...)
}
