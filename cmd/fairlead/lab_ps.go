package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/lab"
)

func newPS() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "Show nodes, services and pods",
		Example: `  fairlead lab ps
  fairlead lab ps -o json | jq '.pods[] | {name, ips, identity}'`,
		Args: cobra.NoArgs,
	}
	name := nameFlag(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "", "json prints everything, in the form that docs/lab.md describes")
	cmd.RunE = connected(name, func(cmd *cobra.Command, c *lab.Client, _ []string) error {
		v, err := c.View(cmd.Context())
		if err != nil {
			return err
		}
		switch output {
		case "json":
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(v)
		case "":
			return printView(cmd.OutOrStdout(), v)
		}
		return fmt.Errorf("-o %q: want json, or nothing", output)
	})
	return cmd
}

func printView(out io.Writer, v lab.View) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	state := "ready"
	if !v.Ready {
		state = "not ready"
	}
	fmt.Fprintf(w, "LAB\t%s\t%s\t%s\n", v.Name, state, v.Dir)
	if cp := v.ControlPlane; cp != nil {
		where := cp.XDSAddress
		if cp.External != "" {
			where += " (" + cp.External + ")"
		}
		fmt.Fprintf(w, "CONTROL PLANE\t%s\t%s\n", cp.State, where)
	}
	fmt.Fprintf(w, "\nNODE\tAGENT\tADDRESSES\tPODS\n")
	for _, n := range v.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", n.Name, agentState(n.Agent), strings.Join(n.Addresses, ","), strings.Join(n.PodCIDRs, ","))
	}
	if len(v.Services) > 0 {
		fmt.Fprintf(w, "\nSERVICE\tADDRESSES\tPORTS\tENDPOINTS\n")
	}
	for _, s := range v.Services {
		var ports []string
		for _, p := range s.Ports {
			ports = append(ports, fmt.Sprintf("%d->%s/%s", p.Port, p.Target, p.Protocol))
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%d\n", s.Namespace, s.Name, strings.Join(s.ClusterIPs, ","), strings.Join(ports, ","), len(s.Endpoints))
	}
	fmt.Fprintf(w, "\nPOD\tSTATE\tMESH\tRESTARTS\tNODE\tADDRESSES\n")
	for _, p := range v.Pods {
		restarts := int32(0)
		for _, c := range p.Containers {
			restarts += c.Restarts
		}
		fmt.Fprintf(w, "%s/%s\t%s\t%s\t%d\t%s\t%s\n", p.Namespace, p.Name, podState(p), meshState(p), restarts, p.Node, strings.Join(p.IPs, ","))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, p := range v.Pods {
		if p.Reason != "" {
			fmt.Fprintf(out, "\n%s/%s: %s\n", p.Namespace, p.Name, p.Reason)
		}
	}
	return nil
}

func agentState(a *lab.AgentView) string {
	switch {
	case a == nil:
		return "none"
	case a.Ready:
		return "ready"
	case a.State == "running":
		return "not ready"
	}
	return a.State
}

func podState(p lab.PodView) string {
	switch {
	case p.Terminating:
		return "Terminating"
	case p.Ready:
		return "Ready"
	}
	return p.Phase
}

func meshState(p lab.PodView) string {
	switch {
	case p.Captured && p.Enrolled:
		return "enrolled"
	case p.Captured:
		return "joining"
	case p.Enrolled:
		return "leaving"
	}
	return "-"
}
