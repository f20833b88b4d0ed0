package main

import (
	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
)

func newLab() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "A cluster on this machine, out of network namespaces",
		Long: `A lab is a cluster on one Linux machine: nodes and pods are network namespaces, pods
run programs that this binary carries or any command of the machine, and the mesh is
the product's own binaries, one agent per node and one control plane. A directory of
ordinary Kubernetes and Istio YAML says what runs; a saved file takes effect at once.`,
		Example: `  fairlead lab up examples/bookinfo
  fairlead lab ps
  fairlead lab exec productpage -- curl -s details:9080/details/0
  fairlead lab down`,
	}
	cmd.AddCommand(newUp(), newDown(), newPS(), newExec(), newShell(), newLogs(), newKill(), newStart(), newDelete())
	return cmd
}

// nameFlag is the flag that every command on a running lab has.
func nameFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("name", "", "which lab; not needed when only one is running")
}

// connected runs a command on a running lab.
func connected(name *string, run func(*cobra.Command, *lab.Client, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := lab.Connect(*name)
		if err != nil {
			return err
		}
		return run(cmd, c, args)
	}
}
