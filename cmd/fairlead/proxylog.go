package main

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
)

// log shows or sets the level of a waypoint's log, or of a workload's agent where it
// has no waypoint.
func (p *proxyConfig) log() *cobra.Command {
	level, reset := "", false
	cmd := &cobra.Command{
		Use:     "log [<type>/]<name>[.<namespace>]",
		Aliases: []string{"logging", "o"},
		Short:   "Retrieves or changes the log level of a proxy",
		Long: `Shows the log level of a waypoint, a gateway or a node agent, or sets it, until the process ends or --reset. Of a workload's pod
it is its waypoint's, or its node's agent's where it has no waypoint.`,
		Example: `  fairlead proxy-config log deploy/productpage -n default --level debug
  fairlead proxy-config log deploy/productpage -n default --reset`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reset && level != "" {
				return errors.New("--level cannot be combined with --reset")
			}
			client, of, err := p.target(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			pod := of.Waypoint
			if pod == (proxies.Pod{}) {
				pod = of.Agent
			}
			if pod == (proxies.Pod{}) {
				return fmt.Errorf("pod %s has no waypoint, and no agent runs on its node", of.Pod)
			}
			method, page := logRequest(level, reset)
			answer, err := client.Fetch(cmd.Context(), method, pod.Namespace, pod.Name, p.port, page)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s:\n%s\n", pod, strings.TrimSuffix(string(answer), "\n"))
			return nil
		},
	}
	cmd.Flags().StringVar(&level, "level", "", "Level to set: debug, info, warning or error; LOGGER:LEVEL is taken as LEVEL")
	cmd.Flags().BoolVarP(&reset, "reset", "r", false, "Reset the level to what the process started with")
	return cmd
}

// logRequest is the page that shows or sets a level; there is one logger.
func logRequest(level string, reset bool) (method, page string) {
	switch {
	case reset:
		return "POST", "/logging?reset"
	case level == "":
		return "GET", "/logging"
	}
	if i := strings.LastIndexAny(level, ":="); i >= 0 {
		level = level[i+1:]
	}
	if level == "warning" {
		level = "warn" // both of our processes know it
	}
	return "POST", "/logging?level=" + url.QueryEscape(level)
}
