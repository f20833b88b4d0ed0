package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/waypoint"
)

// waypointTimeout is how long a waypoint is waited for unless told otherwise, as with istioctl.
const waypointTimeout = 90 * time.Second

func newWaypoint() *cobra.Command {
	f := &kube.Flags{}
	name := waypoint.DefaultName
	cmd := &cobra.Command{
		Use:   "waypoint",
		Short: "Manage waypoint configuration",
		Long:  "A group of commands used to manage waypoint configuration",
		Example: `  # Apply a waypoint to the current namespace
  fairlead waypoint apply

  # Generate a waypoint as yaml
  fairlead waypoint generate --namespace default

  # List all waypoints in a specific namespace
  fairlead waypoint list --namespace default`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f.Bind(cmd.PersistentFlags())
	cmd.PersistentFlags().StringVar(&name, "name", waypoint.DefaultName, "name of the waypoint")
	cmd.AddCommand(waypointGenerate(f, &name), waypointApply(f, &name), waypointList(f), waypointStatus(f), waypointDelete(f))
	return cmd
}

func specFlags(cmd *cobra.Command, s *waypoint.Spec) {
	cmd.Flags().StringVar(&s.For, "for", "", "Specify the traffic type [all none service workload] for the waypoint")
	cmd.Flags().StringVarP(&s.Revision, "revision", "r", "", "The revision to label the waypoint with")
}

func waypointGenerate(f *kube.Flags, name *string) *cobra.Command {
	var s waypoint.Spec
	cmd := &cobra.Command{
		Use:   "generate",
		Short: "Generate a waypoint configuration as YAML",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.Name, s.Namespace = *name, f.Namespace
			return waypoint.Generate(cmd.OutOrStdout(), s)
		},
	}
	specFlags(cmd, &s)
	return cmd
}

func waypointApply(f *kube.Flags, name *string) *cobra.Command {
	var o waypoint.ApplyOptions
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Apply a waypoint configuration to the cluster",
		Example: `  # Apply a waypoint to a specific namespace, use it for its services, and wait for it to be ready
  fairlead waypoint apply --namespace default --enroll-namespace --wait`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.Connect()
			if err != nil {
				return err
			}
			o.Name, o.Namespace = *name, f.DefaultNamespace()
			return waypoint.Apply(cmd.Context(), client, cmd.OutOrStdout(), o)
		},
	}
	specFlags(cmd, &o.Spec)
	cmd.Flags().BoolVar(&o.Enroll, "enroll-namespace", false, "If set, the namespace will be labeled with the waypoint name")
	cmd.Flags().BoolVar(&o.Overwrite, "overwrite", false, "Overwrite the existing Waypoint used by the namespace")
	cmd.Flags().BoolVarP(&o.Wait, "wait", "w", false, "Wait for the waypoint to be ready")
	cmd.Flags().DurationVar(&o.Timeout, "waypoint-timeout", waypointTimeout, "Timeout for waiting for waypoint ready")
	return cmd
}

func waypointList(f *kube.Flags) *cobra.Command {
	all := false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List managed waypoint configurations in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.Connect()
			if err != nil {
				return err
			}
			return waypoint.List(cmd.Context(), client, cmd.OutOrStdout(), oneOrAll(f, all))
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "List all waypoints in all namespaces")
	return cmd
}

func waypointStatus(f *kube.Flags) *cobra.Command {
	all, wait, timeout := false, true, waypointTimeout
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the status of waypoints in the cluster",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := f.Connect()
			if err != nil {
				return err
			}
			return waypoint.Status(cmd.Context(), client, cmd.OutOrStdout(), oneOrAll(f, all), wait, timeout)
		},
	}
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "Show the status of waypoints in all namespaces")
	cmd.Flags().BoolVarP(&wait, "wait", "w", true, "Wait for the waypoint to be ready")
	cmd.Flags().DurationVar(&timeout, "waypoint-timeout", waypointTimeout, "Timeout for retrieving status for waypoint")
	return cmd
}

func waypointDelete(f *kube.Flags) *cobra.Command {
	all, revision := false, ""
	cmd := &cobra.Command{
		Use:   "delete",
		Short: "Delete a waypoint configuration from the cluster",
		Example: `  # Delete waypoints by name, which can be obtained from fairlead waypoint list
  fairlead waypoint delete waypoint-name1 waypoint-name2 --namespace default

  # Delete all waypoints in a specific namespace
  fairlead waypoint delete --all --namespace default`,
		Args: func(_ *cobra.Command, args []string) error {
			if (all || revision != "") && len(args) > 0 {
				return errors.New("cannot specify waypoint names when deleting all waypoints")
			}
			if !all && revision == "" && len(args) == 0 {
				return errors.New("must specify a waypoint name or delete all using --all or delete specific revision using --revision")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := f.Connect()
			if err != nil {
				return err
			}
			if err := waypoint.Delete(cmd.Context(), client, cmd.OutOrStdout(), f.DefaultNamespace(), args, revision); err != nil {
				return fmt.Errorf("failed to delete waypoints: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "Delete all waypoints in the namespace")
	cmd.Flags().StringVarP(&revision, "revision", "r", "", "Delete the specified version of the waypoint in the namespace")
	return cmd
}

// oneOrAll is the namespace that is meant, "" for all.
func oneOrAll(f *kube.Flags, all bool) string {
	if all {
		return ""
	}
	return f.DefaultNamespace()
}
