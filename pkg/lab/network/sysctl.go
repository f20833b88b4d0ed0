package network

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Settings of the namespaces. Duplicate address detection and router discovery
// are off because addresses come from a plan; redirects are off because pods
// reach their neighbours through the node on purpose.
var (
	hostSettings = []sysctl{
		{"ipv4/ip_forward", "1"},
		{"ipv4/conf/all/rp_filter", "0"},
		{"ipv4/conf/default/rp_filter", "0"},
		{"ipv4/conf/all/send_redirects", "0"},
		{"ipv4/conf/default/send_redirects", "0"},
		{"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/default/accept_redirects", "0"},
		{"bridge/bridge-nf-call-iptables", "0"},
		{"bridge/bridge-nf-call-ip6tables", "0"},
	}
	podSettings = []sysctl{
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/default/accept_redirects", "0"},
		{"ipv6/conf/default/accept_dad", "0"},
		{"ipv6/conf/default/accept_ra", "0"},
		{"ipv6/conf/default/accept_redirects", "0"},
		{"ipv6/conf/default/addr_gen_mode", "1"}, // no link-local address: nothing to announce
		{"ipv4/ping_group_range", "0 2147483647"},
		{"ipv4/ip_unprivileged_port_start", "0"},
	}
)

type sysctl struct{ name, value string }

// apply writes settings of the namespace that the calling thread is in.
func apply(settings []sysctl) error {
	for _, s := range settings {
		err := os.WriteFile(filepath.Join("/proc/sys/net", s.name), []byte(s.value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // not there: the kernel has no IPv6 or no bridge filter
			return fmt.Errorf("set net/%s to %s: %w", s.name, s.value, err)
		}
	}
	return nil
}
