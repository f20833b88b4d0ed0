package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
	"github.com/fairlead-mesh/fairlead/pkg/cli/ztunnelconfig"
)

// ztunnelConfig is what the commands of ztunnel-config have in common.
type ztunnelConfig struct {
	kube.Flags
	output, file, node string
	port               int
}

func newZtunnelConfig() *cobra.Command {
	z := &ztunnelConfig{}
	cmd := &cobra.Command{
		Use:     "ztunnel-config",
		Aliases: []string{"zc"},
		Short:   "Retrieve what a node's agent knows and does",
		Long: `Shows what a node's agent knows of workloads, services and policies, the identities that it holds, and the connections of its pods.
Without a target any agent is asked, with --node that of the node; of a workload's pod that of its node is.`,
		Example: `  fairlead ztunnel-config workload
  fairlead ztunnel-config connections deploy/productpage -n default
  fairlead ztunnel-config all --node n1 -o json
  fairlead ztunnel-config service --file config_dump.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	z.Bind(cmd.PersistentFlags())
	flags := cmd.PersistentFlags()
	flags.IntVar(&z.port, "proxy-admin-port", proxies.AdminPort, "Admin port of the node's agent")
	flags.StringVarP(&z.output, "output", "o", document.Short, "Output format: one of json|yaml|short")
	flags.StringVar(&z.node, "node", "", "Ask the agent of this node")
	flags.StringVarP(&z.file, "file", "f", "", "A dump that was saved, to show without a cluster")
	cmd.AddCommand(z.workloads(), z.services(), z.policies(), z.certificates(), z.connections(), z.all(), z.log())
	return cmd
}

// show makes a command; of is the workload that was named, empty for an agent.
func (z *ztunnelConfig) show(use, short string, aliases []string, write func(cmd *cobra.Command, d *ztunnelconfig.Dump, of proxies.Pod) error) *cobra.Command {
	return &cobra.Command{
		Use: use + " [<type>/]<name>[.<namespace>]", Aliases: aliases, Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := document.CheckFormat(z.output); err != nil {
				return err
			}
			raw, of, err := z.dump(cmd, args)
			if err != nil {
				return err
			}
			d, err := ztunnelconfig.Read(raw)
			if err != nil {
				return err
			}
			return write(cmd, d, of)
		},
	}
}

func (z *ztunnelConfig) dump(cmd *cobra.Command, args []string) (raw []byte, of proxies.Pod, err error) {
	if z.file != "" {
		if len(args) > 0 {
			return nil, of, errors.New("name a pod or workload, or give --file FILE, not both")
		}
		raw, err = os.ReadFile(z.file)
		return raw, of, err
	}
	client, agent, of, err := z.agent(cmd, args)
	if err != nil {
		return nil, of, err
	}
	raw, err = client.Fetch(cmd.Context(), "GET", agent.Namespace, agent.Name, z.port, "/config_dump")
	return raw, of, err
}

// agent is the one that is meant, and the workload's pod if one was named.
func (z *ztunnelConfig) agent(cmd *cobra.Command, args []string) (client *kube.Client, agent, of proxies.Pod, err error) {
	if client, err = z.Connect(); err != nil {
		return nil, agent, of, err
	}
	if len(args) == 0 {
		agent, err = proxies.AgentOn(cmd.Context(), client, z.IstioNamespace, z.node)
		if err == nil && agent == (proxies.Pod{}) {
			err = fmt.Errorf("no node agent (%s) runs in namespace %s%s", proxies.Agents, z.IstioNamespace, onNode(z.node))
		}
		return client, agent, of, err
	}
	found, err := proxies.Find(cmd.Context(), client, &z.Flags, args[0])
	if err != nil {
		return nil, agent, of, err
	}
	if found.Agent == (proxies.Pod{}) {
		return nil, agent, of, fmt.Errorf("no agent runs on the node of pod %s", found.Pod)
	}
	if found.Agent != found.Pod {
		of = found.Pod
	}
	return client, found.Agent, of, nil
}

func onNode(node string) string {
	if node == "" {
		return ""
	}
	return " on node " + node
}

func (z *ztunnelConfig) workloads() *cobra.Command {
	var f ztunnelconfig.WorkloadFilter
	cmd := z.show("workload", "Retrieves workload configuration of a node's agent", []string{"w", "workloads"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, of proxies.Pod) error {
			if of.Name != "" {
				f.Name, f.Namespace = of.Name, of.Namespace
			}
			return d.ShowWorkloads(cmd.OutOrStdout(), f, z.output)
		})
	cmd.Flags().StringVar(&f.Address, "address", "", "Filter workloads by address field")
	cmd.Flags().StringVar(&f.Namespace, "workload-namespace", "", "Filter workloads by namespace field")
	cmd.Flags().StringVar(&f.Node, "workload-node", "", "Filter workloads by node")
	return cmd
}

func (z *ztunnelConfig) services() *cobra.Command {
	namespace := ""
	cmd := z.show("service", "Retrieves service configuration of a node's agent", []string{"services", "s", "svc"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, _ proxies.Pod) error {
			return d.ShowServices(cmd.OutOrStdout(), namespace, z.output)
		})
	cmd.Flags().StringVar(&namespace, "service-namespace", "", "Filter services by namespace field")
	return cmd
}

func (z *ztunnelConfig) policies() *cobra.Command {
	namespace := ""
	cmd := z.show("policy", "Retrieves policy configuration of a node's agent", []string{"policies", "p", "pol"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, _ proxies.Pod) error {
			return d.ShowPolicies(cmd.OutOrStdout(), namespace, z.output)
		})
	cmd.Flags().StringVar(&namespace, "policy-namespace", "", "Filter policies by namespace field")
	return cmd
}

func (z *ztunnelConfig) certificates() *cobra.Command {
	return z.show("certificate", "Retrieves the certificates that a node's agent holds", []string{"certificates", "certs", "cert"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, of proxies.Pod) error {
			return d.ShowCertificates(cmd.OutOrStdout(), d.IdentityOf(of.Namespace, of.Name), z.output, time.Now())
		})
}

func (z *ztunnelConfig) connections() *cobra.Command {
	var f ztunnelconfig.ConnectionFilter
	cmd := z.show("connections", "Retrieves the connections of a node's pods", []string{"cons"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, of proxies.Pod) error {
			if of.Name != "" {
				f.Workload, f.Namespace = of.Name, of.Namespace
			}
			return d.ShowConnections(cmd.OutOrStdout(), f, z.output)
		})
	cmd.Flags().StringVar(&f.Direction, "direction", "", "Filter by direction (inbound or outbound)")
	cmd.Flags().BoolVar(&f.Raw, "raw", false, "If set, show IP addresses instead of names")
	cmd.Flags().StringVar(&f.Namespace, "workload-namespace", "", "Filter by the workload's namespace")
	return cmd
}

func (z *ztunnelConfig) all() *cobra.Command {
	return z.show("all", "Retrieves all that a node's agent knows", []string{"a"},
		func(cmd *cobra.Command, d *ztunnelconfig.Dump, _ proxies.Pod) error {
			out := cmd.OutOrStdout()
			return d.Whole(out, z.output,
				func() error { return d.ShowWorkloads(out, ztunnelconfig.WorkloadFilter{}, z.output) },
				func() error { return d.ShowServices(out, "", z.output) },
				func() error { return d.ShowPolicies(out, "", z.output) },
				func() error { return d.ShowCertificates(out, "", z.output, time.Now()) })
		})
}

func (z *ztunnelConfig) log() *cobra.Command {
	level, reset := "", false
	cmd := &cobra.Command{
		Use: "log [<type>/]<name>[.<namespace>]", Aliases: []string{"logging", "o"},
		Short: "Retrieves or changes the log level of a node's agent", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reset && level != "" {
				return errors.New("--level cannot be combined with --reset")
			}
			client, agent, _, err := z.agent(cmd, args)
			if err != nil {
				return err
			}
			method, page := logRequest(level, reset, nil)
			answer, err := client.Fetch(cmd.Context(), method, agent.Namespace, agent.Name, z.port, page)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s:\n%s\n", agent, strings.TrimSuffix(string(answer), "\n"))
			return nil
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "Level to set: debug, info, warning or error")
	cmd.Flags().BoolVarP(&reset, "reset", "r", false, "Reset the level to what the process started with")
	return cmd
}
