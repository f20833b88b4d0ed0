package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/proxy"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// Precheck returns a sentence for each thing the machine lacks for this lab.
func Precheck(ctx context.Context, o Options) []string {
	if os.Geteuid() != 0 {
		return []string{"The lab needs root: it makes network namespaces and loads programs into the kernel."}
	}
	var missing []string
	add := func(format string, args ...any) { missing = append(missing, fmt.Sprintf(format, args...)) }
	if _, err := exec.LookPath("nft"); err != nil {
		add("The program nft is missing, which makes service addresses work: install the package nftables.")
	} else if err := tryKernel(ctx); err != nil {
		add("The kernel cannot do what a node needs: %v.", err)
	}
	root, err := sandbox.CgroupRoot()
	if err != nil {
		add("The lab needs cgroup2: %v.", err)
	} else if err := tryCgroup(root); err != nil {
		add("The lab needs a cgroup2 whose processes can be killed together (Linux 5.14): %v.", err)
	}
	for _, f := range []string{"/etc/resolv.conf", "/etc/hosts"} {
		if _, err := os.Stat(f); err != nil {
			add("Pods get a file of their own over %s, and the machine has none: %v.", f, err)
		}
	}
	if o.NoMesh {
		return missing
	}
	binaries := []string{"node-agent"}
	if o.ControlPlane == "" {
		binaries = append(binaries, "control-plane")
	}
	for _, b := range binaries {
		if _, err := os.Stat(filepath.Join(o.Binaries, b)); err != nil {
			add("The program %s is not beside this one (in %s): make build.", b, o.Binaries)
		}
	}
	if len(missing) == 0 {
		// It knows best what its programs need. What it says is a line each.
		said, err := exec.CommandContext(ctx, filepath.Join(o.Binaries, "node-agent"), "precheck").Output()
		if err != nil {
			missing = append(missing, strings.Split(strings.TrimSpace(string(said)), "\n")...)
		}
	}
	return missing
}

// tryKernel makes a fabric with one node, and loads rules there: namespaces,
// bridges, veths and nftables are all in it.
func tryKernel(ctx context.Context) error {
	prefix := fmt.Sprintf("fairlead.%d.", os.Getpid())
	f, err := network.NewFabric(prefix + "try-fabric")
	if err != nil {
		return err
	}
	defer f.Close()
	h, err := f.AddHost(prefix+"try-node", network.IPv4.Node(0))
	if err != nil {
		return err
	}
	defer h.Close()
	return proxy.Apply(ctx, h.NS(), proxy.Ruleset(nil, nil, nil))
}

func tryCgroup(root string) error {
	dir := filepath.Join(root, fmt.Sprintf("fairlead-try-%d", os.Getpid()))
	if err := sandbox.MakeCgroup(dir); err != nil {
		return err
	}
	defer os.Remove(dir)
	_, err := os.Stat(filepath.Join(dir, "cgroup.kill"))
	return err
}
