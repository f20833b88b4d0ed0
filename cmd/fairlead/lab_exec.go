package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

const podHelp = `POD is a pod's name, namespace/name, a deployment's name (one of its ready pods), or
the beginning of a name. "node/NAME" is a node's own namespace, "control-plane" and
"fabric" are the others.`

func newExec() *cobra.Command {
	var container string
	cmd := &cobra.Command{
		Use:   "exec POD -- COMMAND [ARGS]",
		Short: "Run a command in a pod, or on a node",
		Long:  "Runs a command of this machine in a pod: with its network, resolver, name and environment.\n" + podHelp,
		Example: `  fairlead lab exec productpage -- curl -s details:9080/details/0
  fairlead lab exec node/n1 -- curl -s localhost:15000/config_dump
  fairlead lab exec node/n2 -- tcpdump -ni eth0 port 15008`,
		Args: cobra.MinimumNArgs(2),
	}
	name := nameFlag(cmd)
	cmd.Flags().StringVarP(&container, "container", "c", "", "whose environment (default: the first's)")
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		return execIn(cmd.Context(), c, args[0], container, args[1:])
	})
	return cmd
}

func newShell() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "shell POD",
		Short:   "Open a shell in a pod, or on a node",
		Long:    "Opens $SHELL, or sh, in a pod.\n" + podHelp,
		Example: "  fairlead lab shell productpage\n  fairlead lab shell node/n1",
		Args:    cobra.ExactArgs(1),
	}
	name := nameFlag(cmd)
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, args []string) error {
		shell := os.Getenv("SHELL")
		if shell == "" {
			shell = "sh"
		}
		return execIn(cmd.Context(), c, args[0], "", []string{shell})
	})
	return cmd
}

// execIn becomes a command's parent: it shares the terminal, and a Ctrl-C is the
// command's to act on.
func execIn(ctx context.Context, c *lab.Client, target, container string, argv []string) error {
	spec, err := c.Entrance(ctx, target, container)
	if err != nil {
		return err
	}
	spec.Argv = argv
	if term := os.Getenv("TERM"); term != "" {
		spec.Env = append(spec.Env, "TERM="+term)
	}
	cmd, err := sandbox.Start(spec, sandbox.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, false)
	if err != nil {
		return err
	}
	// Whoever ends this process without a terminal means the command.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stop()
	return cmd.Wait()
}
