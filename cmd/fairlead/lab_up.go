package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
)

// upFlags are those of `lab up` that are not the lab's own options.
type upFlags struct {
	detach  bool
	wait    time.Duration
	family  string
	options lab.Options
}

func newUp() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use:   "up DIR",
		Short: "Make a cluster of a directory of YAML",
		Long: `Makes the cluster that DIR describes and keeps it as DIR says, until Ctrl-C or
"fairlead lab down". Derived objects and status are written to DIR/.fairlead.
Without a Node in DIR there is one node, n1. It needs root.`,
		Example: `  fairlead lab up examples/bookinfo
  fairlead lab up --detach --ip-family ipv6 examples/bookinfo
  fairlead lab up --no-mesh mycluster
  fairlead lab up --control-plane 127.0.0.1:15012 --control-plane-root root-cert.pem mycluster`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.options.Dir = args[0]
			var err error
			if f.options.Family, err = network.ParseFamily(f.family); err != nil {
				return err
			}
			if missing := lab.Precheck(cmd.Context(), f.resolved()); len(missing) > 0 {
				return missingError(missing)
			}
			if f.detach {
				return upDetached(cmd.Context(), f, cmd.OutOrStdout())
			}
			return upForeground(cmd.Context(), f, cmd.OutOrStdout())
		},
	}
	o := &f.options
	flags := cmd.Flags()
	flags.StringVar(&o.Name, "name", "", "the lab's name (default: made of DIR's)")
	flags.BoolVarP(&f.detach, "detach", "d", false, "return when the cluster is ready, and leave it running")
	flags.DurationVar(&f.wait, "wait", 90*time.Second, "with --detach: how long to wait until everything is ready; 0 does not wait")
	flags.StringVar(&f.family, "ip-family", "dual", "ipv4, ipv6 or dual")
	flags.BoolVar(&o.NoMesh, "no-mesh", false, "start neither agents nor a control plane")
	flags.StringVar(&o.ControlPlane, "control-plane", "", "host:port of another control plane, as this machine reaches it")
	flags.StringVar(&o.ControlPlaneName, "control-plane-name", "", "the name in its certificate (default istiod.istio-system.svc)")
	flags.StringVar(&o.ControlPlaneRoot, "control-plane-root", "", "file of its root certificate")
	flags.StringVar(&o.TokenDir, "token-dir", "", "tokens for it: a node's in a file of its name, a pod's in pods/NAMESPACE/NAME (default: the lab's own)")
	flags.StringVar(&o.TrustDomain, "trust-domain", "", "of identities (default cluster.local)")
	flags.StringArrayVar(&o.AgentArgs, "agent-arg", nil, "a further argument of the node agents, such as --cert-ttl=10m; may be repeated")
	flags.StringArrayVar(&o.ControlPlaneArgs, "control-plane-arg", nil, "a further argument of the lab's control plane, such as --ca-cert=FILE; may be repeated")
	flags.StringVar(&o.Binaries, "binaries", "", "where node-agent and control-plane are (default: beside this program)")
	return cmd
}

func (f upFlags) resolved() lab.Options {
	o := f.options
	if o.Binaries == "" {
		o.Binaries = ownDir()
	}
	return o
}

// upForeground is the lab itself, until ctx ends.
func upForeground(ctx context.Context, f upFlags, out io.Writer) error {
	tell := detachedParent() // or nil
	f.options.Logger = slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: shortTime}))
	began := time.Now()
	name, err := f.name()
	if err != nil {
		return err
	}
	if tell != nil {
		f.options.Logger = slog.New(slog.DiscardHandler) // the lab keeps a log of its own
	} else {
		fmt.Fprintf(out, "lab %s is being made; Ctrl-C ends it\n", name)
	}
	err = lab.Run(ctx, f.options, func() {
		if tell != nil {
			tell.ready(lab.LogFile(name, "lab"))
			return
		}
		fmt.Fprintf(out, "lab %s is ready after %.1f s; `fairlead lab ps` shows it\n", name, time.Since(began).Seconds())
	})
	if tell != nil {
		tell.failed(err)
	}
	return err
}

func shortTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.String(a.Key, a.Value.Time().Format("15:04:05.000"))
	}
	return a
}

// notReady is why `up --detach` gave up waiting. The lab goes on.
func notReady(ctx context.Context, name string, waited time.Duration) error {
	c, err := lab.Connect(name)
	if err != nil {
		return err
	}
	v, err := c.View(ctx)
	if err != nil {
		return err
	}
	return fmt.Errorf("lab %s is not ready after %s, and goes on; it waits for:\n  %s", name, waited, strings.Join(v.WaitsFor, "\n  "))
}

func ownDir() string {
	self, err := os.Executable()
	if err != nil {
		return "."
	}
	return filepath.Dir(self)
}

// name is the lab's, given or made of its directory's.
func (f upFlags) name() (string, error) {
	if f.options.Name != "" {
		return f.options.Name, nil
	}
	dir, err := filepath.EvalSymlinks(f.options.Dir)
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	return lab.DefaultName(dir), nil
}
