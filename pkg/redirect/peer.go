package redirect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// peer is the index, in the node's namespace, of the other end of the pod's device:
// the device that has the pod's address.
func (p *Pod) peer() (int, error) {
	home := "/proc/thread-self/ns/net" // opened here: the pod's is entered by another thread
	if p.r.home != nil {
		home = p.r.home.Path()
	}
	node, err := os.Open(home)
	if err != nil {
		return 0, err
	}
	defer node.Close()
	index := 0
	err = p.ns.Do(func() error {
		device, err := deviceOf(p.spec.Addrs)
		if err != nil {
			return err
		}
		a := device.Attrs()
		if _, ok := device.(*netlink.Veth); !ok {
			return fmt.Errorf("the pod's device %s is of type %s, and what leaves it cannot be watched on the node: Fairlead needs a CNI plugin that connects pods by veth pairs", a.Name, device.Type())
		}
		if a.ParentIndex == 0 {
			return fmt.Errorf("the kernel does not tell where the other end of the pod's device %s is", a.Name)
		}
		// The number by which the pod's namespace knows that of the other end: -1 is
		// this one, and it must be the node's.
		id, err := netlink.GetNetNsIdByFd(int(node.Fd()))
		if err != nil {
			return fmt.Errorf("number of the node's namespace in the pod's: %w", err)
		}
		if a.NetNsID != id || id < 0 {
			return fmt.Errorf("the other end of the pod's device %s is not in the node's network namespace", a.Name)
		}
		index = a.ParentIndex
		return nil
	})
	return index, err
}

// deviceOf finds, in the calling thread's namespace, the device of an address.
func deviceOf(addrs []netip.Addr) (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("devices of the pod: %w", err)
	}
	for _, l := range links {
		if l.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		have, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("addresses of the pod's device %s: %w", l.Attrs().Name, err)
		}
		for _, h := range have {
			a, _ := netip.AddrFromSlice(h.IP)
			for _, want := range addrs {
				if a.Unmap() == want.Unmap() {
					return l, nil
				}
			}
		}
	}
	return nil, errors.New("no device of the pod has its address")
}
