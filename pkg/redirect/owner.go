package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// Own is called when no other agent has the instance any more. An agent that came up
// beside another puts its programs in force, and what it knows into the tables, not
// before: until then nothing of the other's is changed. What other versions pinned and
// this one does not know is removed then: maps of their layouts, and programs at hooks
// that this version does not use.
func (r *Redirector) Own() error {
	r.mu.Lock()
	beside := r.beside
	r.beside = false
	pods := slices.Collect(maps.Values(r.pods))
	r.mu.Unlock()
	if _, err := r.Mend(); err != nil { // another may have removed them that went on for a while
		return err
	}
	if beside {
		if err := r.assume(); err != nil {
			return err
		}
		for _, p := range pods {
			if err := p.install(); err != nil { // such as that it has gone
				r.log.Error("a pod's connections go on as the agent before has set it up", "uid", p.spec.UID, "err", err)
			}
		}
	}
	var errs []error
	known := []string{linksDir, sharedDir, layout}
	for name := range entries(r.pins, &errs) {
		if !slices.Contains(known, name) {
			errs = append(errs, os.RemoveAll(filepath.Join(r.pins, name)))
		}
	}
	for name := range entries(filepath.Join(r.pins, linksDir), &errs) {
		if !r.knowsLink(name) {
			_, err := r.detach(name)
			errs = append(errs, err)
		}
	}
	for name := range entries(filepath.Join(r.pins, sharedDir), &errs) {
		if !slices.Contains(sharedMaps, name) {
			errs = append(errs, os.Remove(filepath.Join(r.pins, sharedDir, name)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("what other versions pinned: %w", err)
	}
	return nil
}

// assume makes the node this agent's: what the tables say first, then the programs.
func (r *Redirector) assume() error {
	if err := r.fill(); err != nil {
		return fmt.Errorf("the pods that are enrolled: %w", err)
	}
	if err := r.knowKubelet(r.opts.KubeletCgroup); err != nil {
		return err
	}
	return r.attach()
}

// Reassert puts this agent's programs back in force, where another has put its own: one
// of an earlier version, which does so before it owns the node, and failed.
func (r *Redirector) Reassert() error {
	errs := []error{r.attach()}
	r.mu.Lock()
	pods := slices.Collect(maps.Values(r.pods))
	r.mu.Unlock()
	for _, p := range pods {
		errs = append(errs, p.reassert())
	}
	return errors.Join(errs...)
}

// ErrDetached: the programs were taken off under the agent, as Purge does.
var ErrDetached = errors.New("the programs were taken off the node, as node-agent purge does: restart the agent")

// Mend pins again what is not pinned any more: somebody has wiped the BPF file system,
// or mounted it anew, and what is attached would go with this process. It returns how
// many pins were missing.
func (r *Redirector) Mend() (mended int, err error) {
	r.attached.Lock()
	defer r.attached.Unlock()
	type object struct {
		path string
		pin  func(path string) error
	}
	var missing []object
	found := map[string]map[string]bool{}
	miss := func(path string, pin func(string) error) error {
		dir := filepath.Dir(path)
		if found[dir] == nil {
			var errs []error
			if found[dir] = entries(dir, &errs); len(errs) > 0 {
				return errs[0]
			}
		}
		if !found[dir][filepath.Base(path)] {
			missing = append(missing, object{path, pin})
		}
		return nil
	}
	for name, l := range r.links {
		if err := miss(r.linkPath(name), func(path string) error { return pinLink(path, l) }); err != nil {
			return 0, err
		}
	}
	for name, m := range r.tables {
		if err := miss(r.mapPath(name), func(path string) error { return pinMap(path, m) }); err != nil {
			return 0, err
		}
	}
	if len(missing) == 0 {
		return 0, nil
	}
	for _, h := range r.hooks() {
		if l := r.links[hookPin(h.name)]; l != nil && isDetached(l) {
			return 0, ErrDetached
		}
	}
	if err := r.opts.mount(); err != nil {
		return 0, err
	}
	if err := makePins(r.pins); err != nil {
		return 0, err
	}
	var errs []error
	for _, o := range missing {
		if err := o.pin(o.path); err != nil {
			errs = append(errs, fmt.Errorf("pin %s again: %w", o.path, err))
			continue
		}
		mended++
	}
	return mended, errors.Join(errs...)
}

// isDetached reports whether a hook's link leads nowhere.
func isDetached(l link.Link) bool {
	c, err := another(l) // of its own type, which tells more
	if err != nil {
		return false
	}
	defer c.Close()
	info, err := c.Info()
	return err == nil && info.Cgroup() != nil && info.Cgroup().CgroupId == 0
}

// pinMap pins a map where its pin is gone.
func pinMap(path string, m *ebpf.Map) error {
	if there, err := exists(path); there || err != nil {
		return err
	}
	c, err := m.Clone() // which knows of no pin
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
