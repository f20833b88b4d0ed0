package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// The pins of an instance, in a directory of its name:
//
//	links    what is attached; names are for ever, so that any version takes them over
//	shared   maps of all layouts: of connections, and the roster of pods
//	v1       maps of the layout of that name
const (
	linksDir  = "links"
	sharedDir = "shared"
)

// sharedMaps are those of all layouts (bpf/lib/maps.h).
var sharedMaps = []string{"accepted", "agent_sockets", "flows", "kubelet", "origin_of", "origins", "pending", "probe_sockets", "roster"}

func pinsOf(bpffs, instance string) string { return filepath.Join(bpffs, "fairlead", instance) }

// pinsBefore is where all of an instance was until layouts could be told apart.
func pinsBefore(bpffs, instance string) string {
	return filepath.Join(bpffs, "fairlead", "v1", instance)
}

func guardPin(device uint32) string { return "guard_" + strconv.FormatUint(uint64(device), 10) }
func steerPin(cookie uint64) string { return "steer_" + strconv.FormatUint(cookie, 10) }
func hookPin(name string) string    { return "link_" + name }

func (r *Redirector) linkPath(name string) string { return filepath.Join(r.pins, linksDir, name) }

func (r *Redirector) mapPath(name string) string {
	if slices.Contains(sharedMaps, name) {
		return filepath.Join(r.pins, sharedDir, name)
	}
	return filepath.Join(r.pins, layout, name)
}

func makePins(path string) error {
	for _, dir := range []string{linksDir, sharedDir, layout} {
		if err := os.MkdirAll(filepath.Join(path, dir), 0o700); err != nil {
			return fmt.Errorf("redirect: pins: %w", err)
		}
	}
	return nil
}

// openMaps takes over the instance's pinned maps, or makes them.
func (r *Redirector) openMaps(specs map[string]*ebpf.MapSpec) error {
	r.tables = map[string]*ebpf.Map{}
	for name, spec := range specs {
		if strings.HasPrefix(name, ".") {
			continue // a program's own
		}
		m, err := openMap(r.mapPath(name), spec)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, explain(err))
		}
		r.tables[name] = m
	}
	return nil
}

func openMap(path string, spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	switch {
	case err == nil:
		if err := spec.Compatible(m); err != nil {
			_ = m.Close()
			return nil, err
		}
		return m, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	if m, err = ebpf.NewMap(spec); err != nil {
		return nil, err
	}
	if err := m.Pin(path); err != nil {
		_ = m.Close()
		return nil, fmt.Errorf("pin: %w", err)
	}
	return m, nil
}

// hold takes over the pinned link of that name, with the new program, or
// attaches and pins.
func (r *Redirector) hold(name string, program *ebpf.Program, attach func() (link.Link, error)) error {
	l, err := r.pinned(name, program, attach)
	if err != nil {
		return err
	}
	r.links = append(r.links, l)
	return nil
}

// pinned replaces the program of a link at once. At no time are there two links: both
// of their programs would act.
func (r *Redirector) pinned(name string, program *ebpf.Program, attach func() (link.Link, error)) (link.Link, error) {
	path := r.linkPath(name)
	l, err := link.LoadPinnedLink(path, nil)
	if err == nil {
		err := l.Update(program)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, unix.ENOLINK) {
			_ = l.Close()
			return nil, fmt.Errorf("replace the program: %w", err)
		}
		// Severed: what it was attached to is gone.
		_ = l.Unpin()
		_ = l.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if l, err = attach(); err != nil {
		return nil, err
	}
	if err := l.Pin(path); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("pin: %w", err)
	}
	return l, nil
}

// Own is called when no other agent has the instance any more: what other versions
// pinned and this one does not know is removed, maps of their layouts and programs
// at hooks that this version does not use. Its own pins are there then, also where another
// has removed them that went on for a while.
func (r *Redirector) Own() error {
	errs := []error{makePins(r.pins)}
	for name, m := range r.tables {
		errs = append(errs, pinAgain(r.mapPath(name), m))
	}
	known := []string{linksDir, sharedDir, layout}
	for name := range entries(r.pins, &errs) {
		if !slices.Contains(known, name) {
			errs = append(errs, os.RemoveAll(filepath.Join(r.pins, name)))
		}
	}
	for name := range entries(filepath.Join(r.pins, linksDir), &errs) {
		if !r.knowsLink(name) {
			errs = append(errs, unpin(r.linkPath(name)))
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

// pinAgain pins a map where its pin is gone.
func pinAgain(path string, m *ebpf.Map) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c, err := m.Clone() // which knows of no pin
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

func (r *Redirector) knowsLink(name string) bool {
	return strings.HasPrefix(name, "guard_") || strings.HasPrefix(name, "steer_") ||
		slices.ContainsFunc(r.hooks(), func(h hook) bool { return hookPin(h.name) == name })
}

// entries are the names in a directory, which need not be there.
func entries(dir string, errs *[]error) map[string]bool {
	found, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		*errs = append(*errs, err)
	}
	out := map[string]bool{}
	for _, f := range found {
		out[f.Name()] = true
	}
	return out
}

// unpin detaches at once: a link that is merely let go of acts a moment longer.
func unpin(path string) error {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	defer l.Close()
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, ebpf.ErrNotSupported) {
		return errors.Join(err, l.Unpin())
	}
	return l.Unpin()
}

// Purge detaches and unpins everything of an instance, of any version, whether or not
// an agent runs. Its pods are outside the mesh from then on. nodeNetNS is the path of the
// node's network namespace; "" is the calling thread's.
func Purge(bpffs, instance, nodeNetNS string) error {
	if nodeNetNS == "" {
		return purge(bpffs, instance)
	}
	node, err := netns.Open(nodeNetNS)
	if err != nil {
		return fmt.Errorf("the node's network namespace: %w", err)
	}
	defer node.Close()
	return node.Do(func() error { return purge(bpffs, instance) })
}

func purge(bpffs, instance string) error {
	if bpffs == "" {
		bpffs = "/sys/fs/bpf"
	}
	if !instanceName.MatchString(instance) {
		return fmt.Errorf("instance %q: want lower case letters, digits and dashes", instance)
	}
	var errs []error
	for _, dir := range []string{pinsOf(bpffs, instance), pinsBefore(bpffs, instance)} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs,
			removeFilters(filepath.Join(dir, sharedDir, "roster")),
			os.RemoveAll(filepath.Join(dir, linksDir)), // nothing may act on maps that are gone
			os.RemoveAll(dir))
	}
	// The parents go with their last instance.
	_ = os.Remove(filepath.Dir(pinsBefore(bpffs, instance)))
	_ = os.Remove(filepath.Join(bpffs, "fairlead"))
	return errors.Join(errs...)
}
