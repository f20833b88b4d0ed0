package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/install/precheck"
)

// newExperimental holds the commands that istioctl has there.
func newExperimental() *cobra.Command {
	cmd := &cobra.Command{Use: "experimental", Aliases: []string{"x", "exp"}, Short: "Commands that istioctl's users look for here"}
	cmd.AddCommand(newPrecheck())
	return cmd
}

func newPrecheck() *cobra.Command {
	var k kube.Flags
	var f request
	var onNodes bool
	cmd := &cobra.Command{
		Use:   "precheck",
		Short: "Look whether a cluster is fit for the mesh",
		Long: `Looks at the API server, your rights, the nodes' kernels, the network and other meshes,
and names what is missing with its remedy. Nothing is changed, except with --on-nodes:
then a pod on each node looks at what only can be seen there, such as the kernel's BPF
features and cgroups, and goes again.

The exit code is 0 if the cluster is fit, 2 if something is missing, and 1 if it could
not be told.`,
		Example: `  fairlead x precheck
  fairlead x precheck --on-nodes
  fairlead x precheck --on-nodes -f istio-install.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, _, err := f.manifest(cmd.InOrStdin())
			if err != nil {
				return err
			}
			c, err := k.Connect()
			if err != nil {
				return err
			}
			findings, err := precheck.Look(cmd.Context(), c)
			if err != nil {
				return err
			}
			if onNodes {
				more, err := precheck.OnNodes(cmd.Context(), c, m)
				if err != nil {
					return err
				}
				findings = append(findings, more...)
			}
			var missing missingError
			for _, f := range findings {
				if f.Level == precheck.Missing {
					missing = append(missing, "✘ "+f.String())
					continue
				}
				fmt.Fprintln(cmd.OutOrStdout(), "! "+f.String())
			}
			if len(missing) > 0 {
				return missing
			}
			fmt.Fprintln(cmd.OutOrStdout(), "✔ The cluster is fit: Fairlead can be installed or upgraded")
			return nil
		},
	}
	cmd.Flags().BoolVar(&onNodes, "on-nodes", false, "look on each node, from a pod of the agent's image")
	f.bind(cmd)
	k.Bind(cmd.Flags())
	return cmd
}
