package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/test/kube/machine"
)

const corefile = `.:53 {
    bind $ALL
    errors
    ready $READY
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        kubeconfig $DIR/inside.kubeconfig test
        pods insecure
    }
    cache 5
}
`

// startServices starts, beside the control plane, the cluster's DNS and a
// kube-proxy: the API server calls webhooks by the address of their Service.
func (c *Cluster) startServices(ctx context.Context) error {
	values := strings.NewReplacer("$DIR", c.Dir, "$CLUSTER", c.Dir, "$NAME", "n1",
		"$READY", net.JoinHostPort(c.options.families()[0].hub, "8181"),
		"$ALL", strings.ReplaceAll(each(c.options.families(), func(f family) string { return f.hub }), ",", " "),
		"$RANGE", each(c.options.families(), func(f family) string { return f.pods }))
	for name, text := range map[string]string{"Corefile": corefile, "kube-proxy.yaml": proxyConfig} {
		if err := os.WriteFile(filepath.Join(c.Dir, name), []byte(values.Replace(text)), 0o600); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	for _, s := range [][]string{
		{"coredns", "-conf", filepath.Join(c.Dir, "Corefile")},
		{"kube-proxy", "--config", filepath.Join(c.Dir, "kube-proxy.yaml")},
	} {
		path, err := c.options.part(s[0])
		if err != nil {
			return err
		}
		if err := c.Beside(ctx, s[0], append([]string{path}, s[1:]...)...); err != nil {
			return err
		}
	}
	return nil
}

// BesideAddress is the address of what [Cluster.Beside] starts, BesideServer the API server's URL
// from there.
const (
	BesideAddress = hubAddress
	BesideServer  = "https://" + hubAddress + ":6443"
)

// BesideKubeconfig is an administrator's, from there.
func (c *Cluster) BesideKubeconfig() string { return filepath.Join(c.Dir, "inside.kubeconfig") }

// BesideNetNS is the network namespace of what [Cluster.Beside] starts.
func (c *Cluster) BesideNetNS() string { return c.network.hub.Path() }

// Beside starts a program in the cluster's network on a machine that is none of its nodes, with
// its output in the cluster's directory. It ends with the cluster.
func (c *Cluster) Beside(ctx context.Context, name string, args ...string) error {
	supervisor, err := c.options.part("node")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), supervisor, append([]string{"run"}, args...)...)
	cmd.Dir = c.Dir
	cmd.Env = os.Environ()
	if !c.options.Detached {
		cmd.Env = append(cmd.Env, machine.Lifeline+"=1")
	}
	p, err := start(c.Dir, name, cmd, c.network.hub, c.options.Detached)
	if err != nil {
		return err
	}
	c.others = append(c.others, p)
	return nil
}
