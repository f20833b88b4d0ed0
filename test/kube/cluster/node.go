package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/test/kube/machine"
)

// Node is a node: kubelet, containerd and kube-proxy in namespaces of their own
// (network, mount, PID, UTS, IPC, cgroup). Its process 1 is the node's init: it ends
// all of the node with it, and what was mounted or lay in /run and bpffs is gone then.
type Node struct {
	// Name is the node's in the cluster.
	Name string
	// Address is its address in the cluster's network, the first of two.
	Address string
	// Dir holds its configuration, its private /etc, /opt and /var, and its logs.
	Dir string

	cluster *Cluster
	ns      *netns.NS
	init    *process
}

// startNodes starts every node, kube-proxy beside the control plane (webhooks are
// called by their Services) and the cluster's DNS, then waits until all nodes are ready.
func (c *Cluster) startNodes(ctx context.Context, pki *authority) error {
	if err := c.pause(); err != nil {
		return err
	}
	for i := 1; i <= c.options.Nodes; i++ {
		n := &Node{Name: fmt.Sprintf("n%d", i), Address: c.options.familiesOf(i)[0].address(i), cluster: c, ns: c.network.nodes[i-1]}
		n.Dir = filepath.Join(c.Dir, n.Name)
		var ips []net.IP
		for _, f := range c.options.familiesOf(i) {
			ips = append(ips, net.ParseIP(f.address(i)))
		}
		err := errors.Join(
			pki.issue(n.Name, subject{name: "system:node:" + n.Name, organization: "system:nodes", dns: []string{n.Name}, ips: ips}),
			pki.kubeconfig(n.Name, n.Name, c.options.server()),
		)
		if err != nil {
			return err
		}
		if err := n.prepare(i); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
		if err := n.Start(); err != nil {
			return err
		}
		c.Nodes = append(c.Nodes, n)
	}
	if err := c.startServices(ctx); err != nil {
		return err
	}
	for _, n := range c.Nodes {
		if err := n.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// pause writes the image of the process that holds a pod's namespaces.
func (c *Cluster) pause() error {
	path, err := c.options.part("node")
	if err != nil {
		return err
	}
	a := Archive{Files: map[string]string{"/pause": path}, Images: map[string][]string{"localhost/pause:1": {"/pause"}}}
	return a.Write(filepath.Join(c.Dir, "pause.tar"))
}

// Start boots the node: the first time, or after Kill.
func (n *Node) Start() error {
	path, err := n.cluster.options.part("node")
	if err != nil {
		return err
	}
	cmd := exec.Command(path, filepath.Join(n.Dir, machine.File))
	cmd.Dir = n.Dir
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}
	if !n.cluster.options.Detached {
		cmd.Env = append(cmd.Env, machine.Lifeline+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	n.init, err = start(n.cluster.Dir, "node-"+n.Name, cmd, n.ns, n.cluster.options.Detached)
	return err
}

// Kill ends the node as a power cut does: all of its processes at once. Its network
// namespace goes on, with the devices and rules in it; Start boots it again.
func (n *Node) Kill() { n.init.kill() }

// Ready waits until the node is Ready in the cluster.
func (n *Node) Ready(ctx context.Context) error {
	err := n.init.wait(ctx, func() error {
		out, err := n.cluster.Kubectl(ctx, "get", "node", n.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		if err == nil && out != "True" {
			err = fmt.Errorf("Ready is %q", out)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\ncontainerd: %s\nkubelet: %s", err, n.Log("containerd"), n.Log("kubelet"))
	}
	return nil
}

// PID is the node's process 1, as this machine counts.
func (n *Node) PID() int { return n.init.cmd.Process.Pid }

// NetNS is the node's own network namespace.
func (n *Node) NetNS() *netns.NS { return n.ns }

// Command is a command inside all of the node's namespaces.
func (n *Node) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(n.PID()), "-m", "-u", "-i", "-n", "-p", "-C", "--"}, args...)...)
}

// Run runs a command inside the node and returns what it prints.
func (n *Node) Run(ctx context.Context, args ...string) (string, error) {
	out, err := n.Command(ctx, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("on node %s: %v: %w: %s", n.Name, args, err, out)
	}
	return string(out), nil
}

// Import gives the node the images of an archive.
func (n *Node) Import(ctx context.Context, archive string) error {
	_, err := n.Run(ctx, "ctr", "-n", "k8s.io", "images", "import", archive)
	return err
}

// Log is the end of one of the node's logs: kubelet, containerd or kube-proxy.
func (n *Node) Log(part string) string { return tail(filepath.Join(n.Dir, part+".log")) }

// prepare makes the node's cgroups, directories and configuration files.
func (n *Node) prepare(i int) error {
	m := machine.Machine{
		Name: n.Name, Dir: n.Dir, Cgroup: prefix(n.cluster.Name) + n.Name,
		Programs: []machine.Program{
			{Name: "containerd", Slice: "system.slice/containerd.service", Args: []string{"containerd", "--config", filepath.Join(n.Dir, "containerd.toml")}, Socket: "/run/containerd/containerd.sock"},
			{Name: "kubelet", Slice: "system.slice/kubelet.service", Args: []string{
				filepath.Join(n.cluster.options.Parts, "kubelet"), "--config", filepath.Join(n.Dir, "kubelet.yaml"),
				"--kubeconfig", filepath.Join(n.cluster.Dir, n.Name+".kubeconfig"), "--hostname-override", n.Name, "--node-ip", each(n.cluster.options.familiesOf(i), func(f family) string { return f.address(i) }),
			}},
			{Name: "kube-proxy", Slice: "system.slice/kube-proxy.service", Args: []string{filepath.Join(n.cluster.options.Parts, "kube-proxy"), "--config", filepath.Join(n.Dir, "kube-proxy.yaml")}},
		},
		Images: append([]string{filepath.Join(n.cluster.Dir, "pause.tar")}, n.cluster.options.Images...),
	}
	if err := m.Prepare(); err != nil {
		return err
	}
	if err := n.writeConfig(i); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	if err := os.WriteFile(filepath.Join(n.Dir, machine.File), b, 0o600); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}
