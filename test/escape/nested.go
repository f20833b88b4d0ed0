package main

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nested connects from a namespace of the pod's own making, with the pod's own
// address on a macvlan of its device: another cookie, the same wire.
func nested(dst netip.AddrPort, marker string) (int, error) {
	own, err := ownAddress(dst)
	if err != nil {
		return 0, err
	}
	done := make(chan error)
	go func() {
		// The thread ends in another namespace and is thrown away with the goroutine.
		runtime.LockOSThread() //nolint:forbidigo // a test program that plays the attacker
		done <- nestedConnect(dst, own, marker)
	}()
	// One SYN at least was put on the wire by hand.
	return 1, <-done
}

func nestedConnect(dst netip.AddrPort, own netip.Addr, marker string) error {
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	routes, err := netlink.RouteGet(dst.Addr().AsSlice())
	if err != nil || len(routes) == 0 {
		return fmt.Errorf("route: %w", err)
	}
	pod, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer pod.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	here, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer here.Close()
	// The macvlan is made in the pod, straight into the new namespace.
	inPod, err := netlink.NewHandleAt(netns.NsHandle(pod.Fd()))
	if err != nil {
		return err
	}
	defer inPod.Close()
	child := &netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{Name: "nested0", ParentIndex: link.Attrs().Index, Namespace: netlink.NsFd(here.Fd())},
		Mode:      netlink.MACVLAN_MODE_BRIDGE,
	}
	if err := inPod.LinkAdd(child); err != nil {
		return fmt.Errorf("macvlan: %w", err)
	}
	up, err := netlink.LinkByName("nested0")
	if err != nil {
		return err
	}
	bits := 24
	if own.Is6() {
		bits = 64
	}
	address, err := netlink.ParseAddr(fmt.Sprintf("%s/%d", own, bits))
	if err != nil {
		return err
	}
	address.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrAdd(up, address); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(up); err != nil {
		return err
	}
	if gw := routes[0].Gw; gw != nil {
		onlink := &netlink.Route{LinkIndex: up.Attrs().Index, Gw: gw, Flags: int(netlink.FLAG_ONLINK)}
		if err := netlink.RouteAdd(onlink); err != nil {
			return fmt.Errorf("route: %w", err)
		}
	}
	_, err = stream(nil, nil)(dst, marker)
	return err
}
