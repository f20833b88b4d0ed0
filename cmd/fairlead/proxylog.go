package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
)

// log shows or sets the level of a proxy's log, or of the lines about a workload at its
// agent and its waypoint.
func (p *proxyConfig) log() *cobra.Command {
	level, reset := "", false
	cmd := &cobra.Command{
		Use:     "log [<type>/]<name>[.<namespace>]",
		Aliases: []string{"logging", "o"},
		Short:   "Retrieves or changes the log level of a proxy",
		Long: `Shows the log level of a proxy, or sets it.

Of a waypoint, a gateway or a node agent it is the level of all that this process writes, until it ends or --reset.

Of a workload it is the level of the lines about it, and of no others, for an hour or until --reset: at its node's agent the lines
about the one pod that is chosen (name a pod to choose it), and at its waypoint those about the workload's services, whoever calls
them. Access logs are no matter of the level: they have all requests and connections, or none.`,
		Example: `  fairlead proxy-config log deploy/productpage -n default --level debug
  fairlead proxy-config log deploy/productpage -n default --reset
  fairlead proxy-config log deploy/waypoint -n default --level debug`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reset && level != "" {
				return errors.New("--level cannot be combined with --reset")
			}
			client, of, err := target(cmd.Context(), &p.Flags, args[0])
			if err != nil {
				return err
			}
			asked := whoLogs(of)
			if len(asked) == 0 {
				return fmt.Errorf("pod %s has no waypoint, and no agent runs on its node", of.Pod)
			}
			for _, at := range asked {
				method, page := logRequest(level, reset, at.about)
				answer, err := client.Fetch(cmd.Context(), method, at.pod.Namespace, at.pod.Name, p.port, page)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s:\n%s\n", at.pod, strings.TrimSuffix(string(answer), "\n"))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "Level to set: debug, info, warning or error; LOGGER:LEVEL is taken as LEVEL")
	cmd.Flags().BoolVarP(&reset, "reset", "r", false, "Reset the level to what the process started with")
	return cmd
}

// logging is a process whose level is meant: of all that it writes, or of lines about texts.
type logging struct {
	pod   proxies.Pod
	about []string
}

// whoLogs are the processes that write about a target.
func whoLogs(of proxies.Of) (out []logging) {
	if of.Self() {
		return []logging{{pod: of.Pod}}
	}
	if of.Waypoint != (proxies.Pod{}) && len(of.Hosts) > 0 {
		out = append(out, logging{of.Waypoint, of.Hosts[:min(len(of.Hosts), maxHosts)]})
	}
	if of.Agent != (proxies.Pod{}) {
		out = append(out, logging{of.Agent, []string{of.Pod.Namespace + "/" + of.Pod.Name}})
	}
	return out
}

// maxHosts bounds the services of a workload that are named to a waypoint, which takes no
// more for all.
const maxHosts = 16

// logRequest is the page that shows or sets a level; there is one logger.
func logRequest(level string, reset bool, about []string) (method, page string) {
	query := url.Values{}
	if len(about) > 0 {
		query["about"] = about
	}
	method = "POST"
	switch {
	case reset:
		query.Set("reset", "")
	case level == "":
		method = "GET"
	default:
		query.Set("level", plainLevel(level))
	}
	if page = "/logging"; len(query) > 0 {
		page += "?" + query.Encode()
	}
	return method, page
}

// plainLevel is a level without a logger's name, as both of our processes know it.
func plainLevel(level string) string {
	if i := strings.LastIndexAny(level, ":="); i >= 0 {
		level = level[i+1:]
	}
	if level == "warning" {
		return "warn"
	}
	return level
}
