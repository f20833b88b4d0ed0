package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/version"
)

func newVersion() *cobra.Command {
	f, at := &kube.Flags{}, &controlplane.Flags{}
	short, remote, output := true, true, ""
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Prints out build version information",
		Example: `  fairlead version
  fairlead version --remote=false
  fairlead version --xds-address 192.0.2.10:15012
  fairlead version -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh := version.Mesh{Client: version.Own()}
			if remote {
				client, err := f.Connect()
				if err == nil {
					err = mesh.Ask(cmd.Context(), client, at, f.IstioNamespace)
				}
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
				}
			}
			return mesh.Write(cmd.OutOrStdout(), output, short)
		},
	}
	f.Bind(cmd.Flags())
	at.Bind(cmd.Flags())
	cmd.Flags().BoolVarP(&short, "short", "s", true, "Use --short=false to generate full version information")
	cmd.Flags().BoolVar(&remote, "remote", true, "Use --remote=false to suppress control plane check")
	cmd.Flags().StringVarP(&output, "output", "o", "", "One of 'yaml' or 'json'.")
	return cmd
}
