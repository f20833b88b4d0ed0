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
		bpffs = BPFFS
	}
	if !instanceName.MatchString(instance) {
		return fmt.Errorf("instance %q: want lower case letters, digits and dashes", instance)
	}
	var errs []error
	for _, dir := range []string{pinsOf(bpffs, instance), pinsBefore(bpffs, instance)} {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		for name := range entries(filepath.Join(dir, linksDir), &errs) {
			_, err := unpin(filepath.Join(dir, linksDir, name)) // an agent that runs holds them
			errs = append(errs, err)
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
