package main

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxystatus"
)

func newProxyStatus() *cobra.Command {
	f, at := &kube.Flags{}, &controlplane.Flags{}
	output, file := "", ""
	cmd := &cobra.Command{
		Use:     "proxy-status [<type>/]<name>[.<namespace>]",
		Aliases: []string{"ps"},
		Short:   "Retrieves the synchronization status of each proxy in the mesh",
		Long: `Shows every node agent, waypoint and gateway that is connected to the control plane: in sync, stale, or refusing something,
with the resource and the reason. Of a pod it shows its node's agent and its waypoint.

Every pod of the control plane is asked, or the one replica at --xds-address. That one shows what it knows to who may create
tokens of the service account "default" in the namespace of the mesh, and no one else.`,
		Example: `  fairlead proxy-status
  fairlead proxy-status deploy/productpage -n default
  fairlead proxy-status --xds-address 192.0.2.10:15012
  fairlead proxy-status -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				raw, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				all, err := proxystatus.Read(raw, file)
				if err != nil {
					return err
				}
				return proxystatus.Write(cmd.OutOrStdout(), all, output, time.Now())
			}
			client, err := f.Connect()
			if err != nil {
				return err
			}
			all, err := proxystatus.Ask(cmd.Context(), client, at, f.IstioNamespace)
			if err != nil {
				return err
			}
			if len(args) == 1 {
				of, err := proxies.Find(cmd.Context(), client, f, args[0])
				if err != nil {
					return err
				}
				all = slices.DeleteFunc(all, func(c proxystatus.Client) bool {
					return c.Name() != of.Agent.String() && c.Name() != of.Waypoint.String()
				})
				if len(all) == 0 {
					return fmt.Errorf("neither the agent of pod %s nor a waypoint of it is connected to the control plane", of.Pod)
				}
			} else if f.Namespace != "" {
				all = slices.DeleteFunc(all, func(c proxystatus.Client) bool { return c.Namespace() != f.Namespace })
			}
			return proxystatus.Write(cmd.OutOrStdout(), all, output, time.Now())
		},
	}
	f.Bind(cmd.Flags())
	at.Bind(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "", "Output format: one of json|yaml|short")
	cmd.Flags().StringVarP(&file, "file", "f", "", "What a control plane's /debug/syncz answered, to show without a cluster")
	return cmd
}
