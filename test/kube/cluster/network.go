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
	hubAddress = "10.77.0.1"
	podRange   = "10.88.0.0/16"
)

func nodeAddress(i int) string { return fmt.Sprintf("10.77.0.%d", 10+i) }
func podSubnet(i int) string   { return fmt.Sprintf("10.88.%d.0/24", i) }

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
	hub := []string{"link set lo up", "link add br0 type bridge", "addr add " + hubAddress + "/24 dev br0", "link set br0 up"}
	if err := configure(c.network.hub, hub); err != nil {
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
			"addr add " + nodeAddress(i) + "/24 dev eth0", "link set eth0 up", "route add default via " + hubAddress,
		}
		for other := 1; other <= c.options.Nodes; other++ {
			if other != i {
				node = append(node, "route add "+podSubnet(other)+" via "+nodeAddress(other))
			}
		}
		if err := configure(ns, node); err != nil {
			return err
		}
		cable := []string{fmt.Sprintf("link set n%d master br0", i), fmt.Sprintf("link set n%d up", i), "route add " + podSubnet(i) + " via " + nodeAddress(i)}
		if err := configure(c.network.hub, cable); err != nil {
			return err
		}
	}
	return nil
}

// configure runs lines of ip(8) in a namespace and lets it forward.
func configure(ns *netns.NS, lines []string) error {
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
	err := ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) })
	if err != nil {
		return fmt.Errorf("network: forwarding: %w", err)
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
