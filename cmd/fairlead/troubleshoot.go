package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/analyze"
	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxyconfig"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxystatus"
)

func newWorkloadLogs() *cobra.Command {
	f := &kube.Flags{}
	tail := 20
	cmd := &cobra.Command{
		Use:   "logs [<type>/]<name>[.<namespace>]",
		Short: "Show what a workload's agent and waypoint have written about it",
		Long: `A pod has no proxy container whose log could be read. This shows the lines of its node's agent and of its waypoint that are about
it or its services.`,
		Example: "  fairlead logs deploy/productpage -n default --tail 50",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, of, err := target(cmd.Context(), f, args[0])
			if err != nil {
				return err
			}
			records, err := proxies.Records(cmd.Context(), client, of)
			if err != nil {
				return err
			}
			printRecords(cmd.OutOrStdout(), records, tail)
			return nil
		},
	}
	f.Bind(cmd.Flags())
	cmd.Flags().IntVar(&tail, "tail", tail, "Lines to show, of the most recent ones")
	return cmd
}

func printRecords(out io.Writer, records []proxies.Record, tail int) {
	for _, r := range records[max(0, len(records)-tail):] {
		fmt.Fprintf(out, "%s: %s\n", r.By, r.Text)
	}
}

func newTroubleshoot() *cobra.Command {
	f, at := &kube.Flags{}, &controlplane.Flags{}
	cmd := &cobra.Command{
		Use:     "troubleshoot [<type>/]<name>[.<namespace>]",
		Short:   "Enrolment, sync state, routes, clusters, recent failures and analysis of a workload",
		Example: "  fairlead troubleshoot deploy/productpage -n default",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, of, err := target(cmd.Context(), f, args[0])
			if err != nil {
				return err
			}
			t := trouble{client, f, at, of, cmd.OutOrStdout()}
			for _, section := range []struct {
				title string
				show  func(context.Context) error
			}{
				{"Enrolment", t.enrolment}, {"Sync state", t.sync}, {"Routes and clusters", t.config}, {"Recent failures", t.failures}, {"Analysis", t.analysis},
			} {
				fmt.Fprintf(t.out, "=== %s ===\n", section.title)
				if err := section.show(cmd.Context()); err != nil {
					fmt.Fprintln(t.out, err) // the other sections may say why
				}
				fmt.Fprintln(t.out)
			}
			return nil
		},
	}
	f.Bind(cmd.Flags())
	at.Bind(cmd.Flags())
	return cmd
}

// trouble writes what is known about a workload.
type trouble struct {
	client *kube.Client
	flags  *kube.Flags
	at     *controlplane.Flags
	of     proxies.Of
	out    io.Writer
}

func (t trouble) enrolment(ctx context.Context) error {
	pod, err := t.client.Get(ctx, kube.Pod, t.of.Pod.Namespace, t.of.Pod.Name)
	if err != nil || pod == nil {
		return err
	}
	redirection := pod.GetAnnotations()["ambient.istio.io/redirection"]
	switch redirection {
	case "enabled":
		redirection = "in the mesh: its traffic is captured"
	case "":
		redirection = "not in the mesh: label it or its namespace istio.io/dataplane-mode=ambient"
	default:
		redirection = "not captured: " + redirection
	}
	name := func(p proxies.Pod) string {
		if p == (proxies.Pod{}) {
			return "none"
		}
		return p.String()
	}
	fmt.Fprintf(t.out, "pod:      %s, %s\nagent:    %s\nwaypoint: %s\n", t.of.Pod, redirection, name(t.of.Agent), name(t.of.Waypoint))
	return nil
}

func (t trouble) sync(ctx context.Context) error {
	all, err := proxystatus.Ask(ctx, t.client, t.at, t.flags.IstioNamespace)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(c proxystatus.Client) bool {
		return c.Name() != t.of.Agent.String() && c.Name() != t.of.Waypoint.String()
	})
	return proxystatus.Write(t.out, all, "", time.Now())
}

func (t trouble) config(ctx context.Context) error {
	if t.of.Waypoint == (proxies.Pod{}) {
		return t.of.NoWaypoint()
	}
	raw, err := t.client.Fetch(ctx, "GET", t.of.Waypoint.Namespace, t.of.Waypoint.Name, proxies.AdminPort, "/config_dump")
	if err != nil {
		return err
	}
	dump, err := proxyconfig.Read(raw)
	if err != nil {
		return err
	}
	if !t.of.Self() {
		dump = dump.About(t.of.Hosts)
	}
	if err := dump.Routes(t.out, "", true, document.Short); err != nil {
		return err
	}
	return dump.Clusters(t.out, proxyconfig.ClusterFilter{}, document.Short)
}

func (t trouble) failures(ctx context.Context) error {
	records, err := proxies.Records(ctx, t.client, t.of)
	if err != nil {
		return err
	}
	records = slices.DeleteFunc(records, func(r proxies.Record) bool { return !r.Trouble() })
	if len(records) == 0 {
		fmt.Fprintln(t.out, "none in the logs of its agent and its waypoint")
	}
	printRecords(t.out, records, 20)
	return nil
}

func (t trouble) analysis(ctx context.Context) error {
	stored, err := analyze.Cluster(ctx, t.client, t.flags.IstioNamespace)
	if err != nil {
		return err
	}
	found, err := analyze.Run(analyze.Input{Stored: stored, Whole: true})
	if err != nil {
		return err
	}
	found = analyze.Filter(found, t.of.Pod.Namespace, nil)
	if len(found) == 0 {
		fmt.Fprintf(t.out, "✔ No validation issues found in namespace %s.\n", t.of.Pod.Namespace)
	}
	return analyze.Print(t.out, found, "log", false)
}
