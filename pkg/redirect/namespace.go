package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// appMark is carried by the agent's dials to applications, so that answers to
	// the client's address come back to it. It proves nothing to anyone.
	appMark = 0x539
	// appTable is the routing table of those answers.
	appTable = 100
)

// spreadV6 is the prefix that the capture's listener is spread over (bpf/lib/addr.h).
var spreadV6 = net.IPNet{IP: net.ParseIP("fd53:666c::"), Mask: net.CIDRMask(32, 128)}

// look finds out about the calling thread's network namespace.
func (p *Pod) look(wantIP6 bool) error {
	disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
	p.ip6 = !errors.Is(err, fs.ErrNotExist) && (len(disabled) == 0 || disabled[0] != '1')
	if wantIP6 && !p.ip6 {
		return errors.New("it has an IPv6 address and IPv6 is off in its namespace")
	}
	return nil
}

// prepare sets up the calling thread's network namespace. It may be run again.
func (p *Pod) prepare() error {
	// Without these, answers to a kept source address are lost: see
	// tcp_fwmark_accept, fwmark_reflect in ip-sysctl.
	for _, s := range []string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect"} {
		if err := setSysctl(s, "1"); err != nil {
			return err
		}
	}
	if err := setSysctl("net/ipv6/fwmark_reflect", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	families := []struct {
		family int
		all    net.IPNet
	}{{unix.AF_INET, net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}}}
	if p.ip6 {
		families = append(families, struct {
			family int
			all    net.IPNet
		}{unix.AF_INET6, net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}})
	}
	for _, f := range families {
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = f.family, appMark, appTable, appTable
		if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("rule for kept source addresses: %w", err)
		}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &f.all, Table: appTable, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route for kept source addresses: %w", err)
		}
	}
	if !p.ip6 {
		return nil
	}
	local := unix.RT_TABLE_LOCAL
	route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: &spreadV6, Table: local, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route for the capture's addresses: %w", err)
	}
	return nil
}

// restore takes away from the calling thread's network namespace what prepare made
// there, and sets the parameters to the kernel's defaults. What is gone is no error.
func (p *Pod) restore() error {
	var errs []error
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	note := func(what string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EAFNOSUPPORT) {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	for _, f := range []struct {
		family int
		all    net.IPNet
	}{
		{unix.AF_INET, net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}},
		{unix.AF_INET6, net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}},
	} {
		rule := netlink.NewRule()
		rule.Family, rule.Mark, rule.Table, rule.Priority = f.family, appMark, appTable, appTable
		note("rule for kept source addresses", netlink.RuleDel(rule))
		note("route for kept source addresses", netlink.RouteDel(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: &f.all, Table: appTable, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		}))
	}
	note("route for the capture's addresses", netlink.RouteDel(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: &spreadV6, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
	}))
	for _, s := range []string{"net/ipv4/tcp_fwmark_accept", "net/ipv4/fwmark_reflect", "net/ipv6/fwmark_reflect"} {
		note("parameter", setSysctl(s, "0"))
	}
	return errors.Join(errs...)
}
