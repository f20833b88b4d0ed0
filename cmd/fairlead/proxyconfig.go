package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxyconfig"
	"github.com/fairlead-mesh/fairlead/pkg/cli/ztunnelconfig"
)

// proxyConfig is what the commands of proxy-config have in common.
type proxyConfig struct {
	kube.Flags
	file string
	port int
}

func newProxyConfig() *cobra.Command {
	p := &proxyConfig{}
	cmd := &cobra.Command{
		Use:     "proxy-config",
		Aliases: []string{"pc"},
		Short:   "Retrieve information about proxy configuration from waypoints and gateways",
		Long: `Shows what a waypoint or gateway is configured with. A pod of a workload has no proxy of its own: of it, the commands show
what the waypoint of its services does for them. What a node agent knows is shown by ztunnel-config.`,
		Example: `  fairlead proxy-config clusters deploy/waypoint -n default
  fairlead proxy-config routes deploy/productpage -n default -o json
  fairlead proxy-config listeners --file config_dump.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	p.Bind(cmd.PersistentFlags())
	cmd.PersistentFlags().IntVar(&p.port, "proxy-admin-port", proxies.AdminPort, "Admin port of the proxy")
	cmd.AddCommand(p.clusters(), p.listeners(), p.routes(), p.endpoints(), p.secrets(), p.bootstrap(), p.all(), p.log())
	return cmd
}

// show makes a command that shows a part of a dump.
func (p *proxyConfig) show(use string, aliases []string, short, output string, write func(*cobra.Command, *proxyconfig.Dump, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use + " [<type>/]<name>[.<namespace>]", Aliases: aliases, Short: short, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := cmd.Flags().GetString("output")
			if err == nil {
				err = document.CheckFormat(format)
			}
			if err != nil {
				return err
			}
			dump, err := p.dump(cmd, args)
			if err != nil {
				return err
			}
			return write(cmd, dump, format)
		},
	}
	p.common(cmd, output)
	return cmd
}

func (p *proxyConfig) common(cmd *cobra.Command, output string) {
	cmd.Flags().StringP("output", "o", output, "Output format: one of json|yaml|short")
	cmd.Flags().StringVarP(&p.file, "file", "f", "", "A dump that was saved, to show without a cluster")
}

// dump is the file's or, of a target, its proxy's.
func (p *proxyConfig) dump(cmd *cobra.Command, args []string) (*proxyconfig.Dump, error) {
	raw, of, err := p.fetch(cmd, args, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	dump, err := proxyconfig.Read(raw)
	if err != nil || of == nil || of.Self() {
		return dump, err
	}
	return dump.About(of.Hosts), nil
}

// fetch reads the file, or asks the proxy of the target for a page.
func (p *proxyConfig) fetch(cmd *cobra.Command, args []string, page string) ([]byte, *proxies.Of, error) {
	if (len(args) == 1) == (p.file != "") {
		return nil, nil, errors.New("name a pod or workload, or give --file FILE")
	}
	if p.file != "" {
		raw, err := os.ReadFile(p.file)
		return raw, nil, err
	}
	client, of, err := target(cmd.Context(), &p.Flags, args[0])
	if err != nil {
		return nil, nil, err
	}
	if of.Waypoint == (proxies.Pod{}) {
		return nil, nil, of.NoWaypoint()
	}
	if !of.Self() {
		fmt.Fprintf(cmd.ErrOrStderr(), "pod %s has no proxy of its own; this is what waypoint %s does for its services. Its node's agent: fairlead ztunnel-config all %s\n", of.Pod, of.Waypoint, of.Agent)
	}
	raw, err := client.Fetch(cmd.Context(), "GET", of.Waypoint.Namespace, of.Waypoint.Name, p.port, page)
	return raw, &of, err
}

// target connects to the cluster and finds the proxies of a workload there.
func target(ctx context.Context, f *kube.Flags, name string) (*kube.Client, proxies.Of, error) {
	client, err := f.Connect()
	if err != nil {
		return nil, proxies.Of{}, err
	}
	of, err := proxies.Find(ctx, client, f, name)
	return client, of, err
}

func (p *proxyConfig) clusters() *cobra.Command {
	var f proxyconfig.ClusterFilter
	cmd := p.show("cluster", []string{"clusters", "c"}, "Retrieves information about cluster configuration of a proxy", document.Short,
		func(cmd *cobra.Command, d *proxyconfig.Dump, format string) error {
			return d.Clusters(cmd.OutOrStdout(), f, format)
		})
	cmd.Flags().StringVar(&f.FQDN, "fqdn", "", "Filter clusters by substring of Service FQDN field")
	cmd.Flags().StringVar(&f.Direction, "direction", "", "Filter clusters by Direction field")
	cmd.Flags().StringVar(&f.Subset, "subset", "", "Filter clusters by substring of Subset field")
	cmd.Flags().IntVar(&f.Port, "port", 0, "Filter clusters by Port field")
	return cmd
}

func (p *proxyConfig) listeners() *cobra.Command {
	var f proxyconfig.ListenerFilter
	cmd := p.show("listener", []string{"listeners", "l"}, "Retrieves information about listener configuration of a proxy", document.Short,
		func(cmd *cobra.Command, d *proxyconfig.Dump, format string) error {
			return d.Listeners(cmd.OutOrStdout(), f, format)
		})
	cmd.Flags().StringVar(&f.Address, "address", "", "Filter listeners by address field")
	cmd.Flags().StringVar(&f.Type, "type", "", "Filter listeners by type field")
	cmd.Flags().Uint32Var(&f.Port, "port", 0, "Filter listeners by Port field")
	cmd.Flags().BoolVar(&f.Verbose, "verbose", true, "Output more information")
	cmd.Flags().BoolVar(&f.Chains, "waypoint", false, "Show filter chains by name, and how the listener's matcher chooses them")
	return cmd
}

func (p *proxyConfig) routes() *cobra.Command {
	name, verbose := "", true
	cmd := p.show("route", []string{"routes", "r"}, "Retrieves information about route configuration of a proxy", document.Short,
		func(cmd *cobra.Command, d *proxyconfig.Dump, format string) error {
			return d.Routes(cmd.OutOrStdout(), name, verbose, format)
		})
	cmd.Flags().StringVar(&name, "name", "", "Filter routes by route name field")
	cmd.Flags().BoolVar(&verbose, "verbose", true, "Output more information")
	return cmd
}

func (p *proxyConfig) endpoints() *cobra.Command {
	var f proxyconfig.EndpointFilter
	cmd := &cobra.Command{
		Use: "endpoint [<type>/]<name>[.<namespace>]", Aliases: []string{"endpoints", "ep"},
		Short: "Retrieves information about endpoint configuration of a proxy", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := cmd.Flags().GetString("output")
			if err == nil {
				err = document.CheckFormat(format)
			}
			if err != nil {
				return err
			}
			raw, of, err := p.fetch(cmd, args, "/clusters?format=json")
			if err != nil {
				return err
			}
			if of != nil && !of.Self() {
				f.Hosts = of.Hosts
			}
			return proxyconfig.Endpoints(cmd.OutOrStdout(), raw, f, format)
		},
	}
	p.common(cmd, document.Short)
	cmd.Flags().StringVar(&f.Address, "address", "", "Filter endpoints by address field")
	cmd.Flags().Uint32Var(&f.Port, "port", 0, "Filter endpoints by Port field")
	cmd.Flags().StringVar(&f.Cluster, "cluster", "", "Filter endpoints by cluster name field")
	cmd.Flags().StringVar(&f.Status, "status", "", "Filter endpoints by status field")
	return cmd
}

// secrets are a waypoint's or gateway's certificates; of a workload they are its own,
// which its node's agent holds.
func (p *proxyConfig) secrets() *cobra.Command {
	cmd := &cobra.Command{
		Use: "secret [<type>/]<name>[.<namespace>]", Aliases: []string{"secrets", "s"},
		Short: "Retrieves the certificates of a proxy, or those that a workload's agent holds for it", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			format, err := cmd.Flags().GetString("output")
			if err == nil {
				err = document.CheckFormat(format)
			}
			if err != nil {
				return err
			}
			if len(args) == 1 && p.file == "" {
				client, of, err := target(cmd.Context(), &p.Flags, args[0])
				if err != nil {
					return err
				}
				if of.Pod != of.Waypoint {
					return p.identity(cmd, client, of, format)
				}
			}
			dump, err := p.dump(cmd, args)
			if err != nil {
				return err
			}
			return dump.Secrets(cmd.OutOrStdout(), format, time.Now())
		},
	}
	p.common(cmd, document.Short)
	return cmd
}

// identity shows what an agent holds for a pod; all of it for the agent itself.
func (p *proxyConfig) identity(cmd *cobra.Command, client *kube.Client, of proxies.Of, format string) error {
	if of.Agent == (proxies.Pod{}) {
		return fmt.Errorf("no agent runs on the node of pod %s", of.Pod)
	}
	raw, err := client.Fetch(cmd.Context(), "GET", of.Agent.Namespace, of.Agent.Name, p.port, "/config_dump")
	if err != nil {
		return err
	}
	dump, err := ztunnelconfig.Read(raw)
	if err != nil {
		return err
	}
	identity := ""
	if of.Pod != of.Agent {
		if identity = dump.IdentityOf(of.Pod.Namespace, of.Pod.Name); identity == "" {
			return fmt.Errorf("agent %s does not know pod %s", of.Agent, of.Pod)
		}
	}
	if err := dump.ShowCertificates(cmd.OutOrStdout(), identity, format, time.Now()); err != nil || format != document.Short {
		return err
	}
	for _, line := range dump.Renewals(identity) {
		fmt.Fprintln(cmd.OutOrStdout(), line)
	}
	return nil
}

func (p *proxyConfig) bootstrap() *cobra.Command {
	return p.show("bootstrap", []string{"b"}, "Retrieves information about bootstrap configuration of a proxy", document.JSON,
		func(cmd *cobra.Command, d *proxyconfig.Dump, format string) error {
			return d.Bootstrap(cmd.OutOrStdout(), format)
		})
}

func (p *proxyConfig) all() *cobra.Command {
	return p.show("all", []string{"a"}, "Retrieves all configuration of a proxy", document.Short,
		func(cmd *cobra.Command, d *proxyconfig.Dump, format string) error {
			out := cmd.OutOrStdout()
			if format != document.Short {
				return d.Whole(out, format)
			}
			for _, part := range []func() error{
				func() error { return d.Clusters(out, proxyconfig.ClusterFilter{}, format) },
				func() error { return d.Listeners(out, proxyconfig.ListenerFilter{Verbose: true}, format) },
				func() error { return d.Routes(out, "", true, format) },
				func() error { return d.Secrets(out, format, time.Now()) },
			} {
				if err := part(); err != nil {
					return err
				}
				fmt.Fprintln(out)
			}
			return nil
		})
}
