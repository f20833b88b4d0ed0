package redirect

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/redirect/bpfobj"
)

// Where the guard's filter stands on kernels without tcx: the first of clsact.
const (
	filterPriority = 1
	filterHandle   = 0xfa1
	filterName     = "fairlead_guard"
)

// guardVeth puts the guard on the node's side of the pod's veth.
func (p *Pod) guardVeth() error {
	peer := 0
	if p.spec.HostInterface == "" {
		var err error
		if peer, err = p.peer(); err != nil {
			return fmt.Errorf("guard: %w", err)
		}
	}
	return p.r.onNode(func() error { return p.guardDevice(peer) })
}

// guardDevice runs in the node's namespace. peer is the device's index, or 0 where
// its name is known.
func (p *Pod) guardDevice(peer int) error {
	var device netlink.Link
	var err error
	if peer == 0 {
		device, err = netlink.LinkByName(p.spec.HostInterface)
	} else {
		device, err = netlink.LinkByIndex(peer)
	}
	if err != nil {
		return fmt.Errorf("guard: device %s on the node: %w", cmp.Or(p.spec.HostInterface, strconv.Itoa(peer)), err)
	}
	nsid, err := p.namespaceID()
	if err != nil {
		p.r.log.Warn("segments of no connection are not dropped for a pod", "uid", p.spec.UID, "err", err)
		nsid = -1
	}
	index := device.Attrs().Index
	p.device, p.nsid = uint32(index), nsid
	if err := p.write(); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := p.r.connect.Guarded.Put(p.device, bpfobj.ConnectVeth{Cookie: p.cookie, Nsid: nsid}); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	if err := p.r.attachGuard(index); err != nil {
		return fmt.Errorf("guard on %s: %w", device.Attrs().Name, err)
	}
	return nil
}

// namespaceID is the number by which the node's namespace knows the pod's.
func (p *Pod) namespaceID() (int32, error) {
	handle, err := os.Open(p.ns.Path())
	if err != nil {
		return 0, err
	}
	defer handle.Close()
	id, err := netlink.GetNetNsIdByFd(int(handle.Fd()))
	if err == nil && id < 0 {
		// Nobody has needed one yet; the kernel chooses.
		if err = netlink.SetNetNsIdByFd(int(handle.Fd()), -1); err == nil {
			id, err = netlink.GetNetNsIdByFd(int(handle.Fd()))
		}
	}
	if err != nil {
		return 0, fmt.Errorf("number of the pod's namespace: %w", err)
	}
	return int32(id), nil
}

// attachGuard attaches by tcx, in front of others, or where the kernel has none
// (before 6.6) by clsact, where the device holds it.
func (r *Redirector) attachGuard(device int) error {
	if !r.opts.withoutTCX {
		err := r.hold(guardPin(uint32(device)), r.guard.FlGuard, func() (link.Link, error) {
			return link.AttachTCX(link.TCXOptions{Interface: device, Program: r.guard.FlGuard, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()})
		})
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return err
		}
	}
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: device, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("clsact: %w", err)
	}
	if err := netlink.FilterReplace(filter(device, r.guard.FlGuard.FD())); err != nil {
		return fmt.Errorf("clsact filter: %w", err)
	}
	return nil
}

func filter(device, program int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: device, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle, Protocol: unix.ETH_P_ALL, Priority: filterPriority},
		Fd:          program, Name: filterName, DirectAction: true,
	}
}

func removeFilter(device int) error {
	if err := netlink.FilterDel(filter(device, 0)); err != nil && !isGone(err) {
		return fmt.Errorf("clsact filter: %w", err)
	}
	return nil
}

// removeFilters takes away the filters of an instance, which have no pins.
func removeFilters(roster string) error {
	m, err := ebpf.LoadPinnedMap(roster, nil)
	if err != nil {
		return nil //nolint:nilerr // it has not come so far
	}
	defer m.Close()
	pods, err := collect[bpfobj.ConnectRosterEntry, uint64](m)
	errs := []error{err}
	for _, p := range pods {
		if p.Device != 0 {
			errs = append(errs, removeFilter(int(p.Device)))
		}
	}
	return errors.Join(errs...)
}

// unguard takes the guard off a device, which may be gone.
func (r *Redirector) unguard(device uint32) error {
	var errs []error
	there, err := r.detach(guardPin(device))
	if !there && err == nil {
		err = removeFilter(int(device))
	}
	errs = append(errs, err)
	if err := r.connect.Guarded.Delete(device); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// isGone reports that a device, or the filter on it, is not there any more.
func isGone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)
}
