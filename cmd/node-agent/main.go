// The node agent: captures the pods of its node and carries their connections
// in mutual TLS, by policy.
package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cni"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// gcPercent lets the heap grow by half between collections, where Go would let it
// double: most of it is what connections that wait need. GOGC in the environment
// goes before.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	run.Program("node-agent", command().ExecuteContext)
}

func command() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "node-agent --node NAME --xds-address HOST:PORT --root-cert FILE --token-file FILE",
		Short: "Capture the pods of this node and carry their connections in mutual TLS",
		Long: `The node agent runs once on each node. It is told of pods over a Unix socket,
captures those that are in the mesh with eBPF, and carries their connections to
other pods in mutual TLS, as the control plane's workloads and policies say.

Without it, a captured pod is refused: what it pinned in the kernel stays until
"node-agent purge".`,
		Example: `  # As on a node of the lab.
  node-agent --node n1 --xds-address 10.0.0.2:15012 --root-cert root.pem --token-file token \
    --enrol-socket /run/fairlead/agent.sock --state-dir /var/lib/fairlead --cert-dir /run/fairlead/certs

  # What is it waiting for, and what does it know?
  curl localhost:15021/healthz/ready
  curl localhost:15000/config_dump

  # Take everything out of the kernel; the pods are outside the mesh then.
  node-agent purge --instance default`,
		Version:       telemetry.Version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(); err != nil {
				return run.Usage(err)
			}
			levels := level.New(c.level)
			log := slog.New(levels.Handler(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug})))
			return serve(cmd.Context(), c, levels, log)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return run.Usage(err) })
	c.bind(cmd.Flags())
	cmd.AddCommand(purge(), uninstall(), withdraw(), precheck())
	return cmd
}

func precheck() *cobra.Command {
	var confDir string
	cmd := &cobra.Command{
		Use:   "precheck",
		Short: "Say what this machine lacks, a sentence each",
		Long: `Says, in a sentence each on standard output, what the kernel and the machine lack
for the agent. The exit code is 2 if anything is missing.`,
		Example: `  node-agent precheck && echo ready
  node-agent precheck --cni-conf-dir /etc/cni/net.d`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			missing := redirect.Precheck("", false)
			if confDir != "" {
				missing = append(missing, cni.Precheck(confDir)...)
			}
			for _, sentence := range missing {
				fmt.Fprintln(cmd.OutOrStdout(), sentence)
			}
			if len(missing) > 0 {
				return run.Usage(fmt.Errorf("%d things are missing", len(missing)))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&confDir, "cni-conf-dir", "", "look at the CNI configuration there, too")
	return cmd
}

// uninstall is what an agent does by itself when its DaemonSet is deleted, for nodes
// whose agent was not there then.
func uninstall() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Take off this node all that the agent put there",
		Long: `Takes the CNI plugin and its configuration, programs, pins, state and keys off
this node, as an agent does when its DaemonSet is deleted. It is for a node whose
agent was not there then. Its pods are outside the mesh from then on.`,
		Example: `  kubectl debug node/NODE --profile=sysadmin --image=IMAGE-OF-THE-AGENT -it -- node-agent uninstall --host=/host`,
		Args:    cobra.NoArgs,
	}
	f := cmd.Flags()
	c.bind(f)
	node := f.String("node-netns", "", "the node's network namespace; empty is this process's")
	host := f.String("host", "", "where the node's root directory is; all other paths are within")
	cmd.RunE = func(*cobra.Command, []string) error {
		if *host != "" {
			if err := errors.Join(syscall.Chroot(*host), os.Chdir("/")); err != nil {
				return fmt.Errorf("the node's root directory %s: %w", *host, err)
			}
		}
		t, err := begin(cmd.Context(), c.enrolSocket, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if t.taker != nil {
			t.taker.Abandon()
			return errors.New("an agent runs on this node: delete its DaemonSet, and it does this itself")
		}
		return errors.Join(
			newInstaller(c, nil, slog.New(slog.DiscardHandler)).Remove(),
			redirect.Purge("", c.instance, *node), os.RemoveAll(c.stateDir), os.RemoveAll(c.certDir), t.remove(),
		)
	}
	return cmd
}

func purge() *cobra.Command {
	var instance, bpffs, node string
	cmd := &cobra.Command{
		Use:     "purge",
		Short:   "Detach and unpin everything of an instance",
		Example: "  node-agent purge --instance default",
		Args:    cobra.NoArgs,
		RunE:    func(*cobra.Command, []string) error { return redirect.Purge(bpffs, instance, node) },
	}
	cmd.Flags().StringVar(&instance, "instance", "default", "the instance whose pins are removed")
	cmd.Flags().StringVar(&bpffs, "bpffs", redirect.BPFFS, "where the BPF file system is mounted")
	cmd.Flags().StringVar(&node, "node-netns", "", "the node's network namespace; empty is this process's")
	return cmd
}
