package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// The roster is the node's pods in a form that every version reads. An agent whose maps
// have another layout fills them from it before its programs take the place of those
// that are attached: both then say the same of every connection, in whichever order
// the links change. It is written before the pods' own table where a pod
// is captured, so that in doubt the next agent captures, and refuses.

// write notes the pod. The caller holds p.mu, or nobody has the pod yet.
func (p *Pod) write() error {
	e := bpfobj.ConnectRosterEntry{Ip4: p.entry.Ip4, Ip6: p.entry.Ip6, Flags: p.entry.Flags & (flagTCPOnly | flagCaptured), Device: p.device, Nsid: p.nsid}
	if err := p.r.tables["roster"].Put(p.cookie, e); err != nil {
		return fmt.Errorf("note the pod for agents to come: %w", err)
	}
	return nil
}

// put makes the pod's entry true: in the roster first.
func (p *Pod) put() error {
	if err := p.write(); err != nil {
		return err
	}
	return p.r.connect.Pods.Put(p.cookie, p.entry)
}

// fill makes the maps of this layout say what the roster does: they are new, or of
// before another version had the node, or already right.
func (r *Redirector) fill() error {
	roster, err := collect[bpfobj.ConnectRosterEntry, uint64](r.tables["roster"])
	if err != nil {
		return err
	}
	pods, devices, err := r.entered()
	if err != nil {
		return err
	}
	for device, v := range devices {
		if roster[v.Cookie].Device != device {
			if err := r.connect.Guarded.Delete(device); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
	}
	for cookie := range pods {
		if _, ok := roster[cookie]; ok {
			continue
		}
		for _, m := range []*ebpf.Map{r.connect.Pods, r.connect.Counters} {
			if err := m.Delete(cookie); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return err
			}
		}
	}
	for cookie, e := range roster {
		if err := r.makeCounters(cookie); err != nil {
			return err
		}
		want := bpfobj.ConnectPod{Ip4: e.Ip4, Ip6: e.Ip6, Flags: e.Flags}
		have := pods[cookie]
		if have.Flags &^= flagSettling; have != want {
			if err := r.connect.Pods.Put(cookie, want); err != nil {
				return err
			}
		}
		veth := bpfobj.ConnectVeth{Cookie: cookie, Nsid: e.Nsid}
		if e.Device != 0 && devices[e.Device] != veth {
			if err := r.connect.Guarded.Put(e.Device, veth); err != nil {
				return err
			}
		}
	}
	return nil
}

// entered is what this layout's tables say: pods by cookie, and devices.
func (r *Redirector) entered() (pods map[uint64]bpfobj.ConnectPod, devices map[uint32]bpfobj.ConnectVeth, err error) {
	if pods, err = collect[bpfobj.ConnectPod, uint64](r.connect.Pods); err != nil {
		return nil, nil, err
	}
	devices, err = collect[bpfobj.ConnectVeth, uint32](r.connect.Guarded)
	return pods, devices, err
}

// makeCounters makes what is counted of a pod, where it is not there yet.
func (r *Redirector) makeCounters(cookie uint64) error {
	for m, zero := range map[*ebpf.Map]any{r.connect.Counters: bpfobj.ConnectPodCounters{}, r.connect.Pending: bpfobj.ConnectUnderWay{}} {
		if err := m.Update(cookie, zero, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return fmt.Errorf("counters: %w", err)
		}
	}
	return nil
}

func collect[V any, K comparable](m *ebpf.Map) (map[K]V, error) {
	out := map[K]V{}
	var k K
	var v V
	it := m.Iterate()
	for it.Next(&k, &v) {
		out[k] = v
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	return out, nil
}

// adopt moves the pins of builds from before layouts could be told apart, whose maps of
// connections and pods are those of layout v1. It reports whether there were any.
func (r *Redirector) adopt() (bool, error) {
	before := pinsBefore(r.opts.BPFFS, r.opts.Instance)
	files, err := os.ReadDir(before)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil && layout != "v1" {
		err = fmt.Errorf("pins of an earlier build are in the way (node-agent purge removes them): %s", before)
	}
	if err != nil {
		return false, err
	}
	for _, f := range files {
		from, to := filepath.Join(before, f.Name()), r.mapPath(f.Name())
		if strings.Contains(f.Name(), "_") && r.knowsLink(f.Name()) {
			to = r.linkPath(f.Name())
		}
		if f.Name() == "counters" { // of another form
			err = os.Remove(from)
		} else if _, serr := os.Stat(to); serr != nil {
			err = os.Rename(from, to)
		}
		if err != nil {
			return false, fmt.Errorf("pins of an earlier build: %w", err)
		}
	}
	_ = os.Remove(filepath.Dir(before)) // with the last instance
	return true, os.RemoveAll(before)
}

// enlist writes the roster of adopted pods.
func (r *Redirector) enlist() error {
	pods, devices, err := r.entered()
	if err != nil {
		return err
	}
	for cookie, p := range pods {
		e := bpfobj.ConnectRosterEntry{Ip4: p.Ip4, Ip6: p.Ip6, Flags: p.Flags &^ flagSettling}
		for device, v := range devices {
			if v.Cookie == cookie {
				e.Device, e.Nsid = device, v.Nsid
			}
		}
		if err := r.tables["roster"].Update(cookie, e, ebpf.UpdateNoExist); err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
			return err
		}
	}
	return nil
}
