package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// The cluster's network: a bridge in a namespace of its own, where the control
// plane and the cluster's DNS are, and a cable from it to each node. Pods are routed, not
// tunnelled and not masqueraded. Clusters side by side have equal addresses.
const (
	hubAddress  = "10.77.0.1"
	hubAddress6 = "fd77::1"
)

// family is what a cluster's network has of one IP family.
type family struct {
	// hub is the address of the control plane and the DNS; pods and services are ranges.
	hub, pods, services string
	// all is the route to anywhere; forward is the switch of a kernel that routes.
	all, forward string
	// node and subnet are the address of node i with its prefix, and the range of its pods.
	node, subnet func(i int) string
	// option is what ip(8) is told of an address.
	option string
}

var ipv4 = family{
	hub: hubAddress, pods: "10.88.0.0/16", services: "10.96.0.0/16", all: "0.0.0.0/0", forward: "/proc/sys/net/ipv4/ip_forward",
	node:   func(i int) string { return fmt.Sprintf("10.77.0.%d/24", 10+i) },
	subnet: func(i int) string { return fmt.Sprintf("10.88.%d.0/24", i) },
}

// A node's addresses are known to be its own: nothing waits for their detection.
var ipv6 = family{
	hub: hubAddress6, pods: "fd88::/48", services: "fd96::/112", all: "::/0", forward: "/proc/sys/net/ipv6/conf/all/forwarding", option: " nodad",
	node:   func(i int) string { return fmt.Sprintf("fd77::%d/64", 10+i) },
	subnet: func(i int) string { return fmt.Sprintf("fd88:0:0:%d::/64", i) },
}

// families are the cluster's, that of its Services first.
func (o *Options) families() []family {
	switch o.Families {
	case Dual:
		return []family{ipv6, ipv4}
	case IPv6:
		return []family{ipv6}
	}
	return []family{ipv4}
}

// familiesOf are those of node i, that of its pods first.
func (o *Options) familiesOf(i int) []family {
	if o.Families == Dual && i%2 == 1 {
		return []family{ipv4, ipv6}
	}
	return o.families()
}

// each is a value of each family, with commas between.
func each(families []family, value func(family) string) string {
	var all []string
	for _, f := range families {
		all = append(all, value(f))
	}
	return strings.Join(all, ",")
}

// address is that of node i without its prefix.
func (f family) address(i int) string {
	address, _, _ := strings.Cut(f.node(i), "/")
	return address
}

// network is the cluster's namespaces: the hub and one per node.
type network struct {
	hub   *netns.NS
	nodes []*netns.NS
}

func (c *Cluster) makeNetwork() error {
	c.network = &network{}
	var err error
	if c.network.hub, err = netns.New(prefix(c.Name) + "cp"); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	families := c.options.families()
	hub := []string{"link set lo up", "link add br0 type bridge", "link set br0 up"}
	for _, f := range families {
		_, prefix, _ := strings.Cut(f.node(0), "/")
		hub = append(hub, "addr add "+f.hub+"/"+prefix+" dev br0"+f.option)
	}
	if err := configure(c.network.hub, hub, families); err != nil {
		return err
	}
	for i := 1; i <= c.options.Nodes; i++ {
		ns, err := netns.New(fmt.Sprintf("%sn%d", prefix(c.Name), i))
		if err != nil {
			return fmt.Errorf("network: %w", err)
		}
		c.network.nodes = append(c.network.nodes, ns)
		node := []string{
			"link set lo up",
			"link add eth0 type veth peer name cable",
			fmt.Sprintf("link set cable netns %s name n%d", filepath.Base(c.network.hub.Path()), i),
			"link set eth0 up",
		}
		cable := []string{fmt.Sprintf("link set n%d master br0", i), fmt.Sprintf("link set n%d up", i)}
		for _, f := range families {
			node = append(node, "addr add "+f.node(i)+" dev eth0"+f.option, "route add "+f.all+" via "+f.hub)
			for other := 1; other <= c.options.Nodes; other++ {
				if other != i {
					node = append(node, "route add "+f.subnet(other)+" via "+f.address(other))
				}
			}
			cable = append(cable, "route add "+f.subnet(i)+" via "+f.address(i))
		}
		if err := configure(ns, node, families); err != nil {
			return err
		}
		if err := configure(c.network.hub, cable, families); err != nil {
			return err
		}
	}
	return nil
}

// configure runs lines of ip(8) in a namespace and lets it forward.
func configure(ns *netns.NS, lines []string, families []family) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("network: ip: %w: %s", err, out.String())
	}
	for _, f := range families {
		if err := ns.Do(func() error { return os.WriteFile(f.forward, []byte("1"), 0) }); err != nil {
			return fmt.Errorf("network: forwarding: %w", err)
		}
	}
	return nil
}

func (n *network) close() error {
	for _, ns := range append(n.nodes, n.hub) {
		if ns != nil {
			_ = ns.Close()
		}
	}
	return nil
}
