// The waypoint: an L7 proxy of the mesh, configured by Envoy's xDS.
package main

import (
	"fmt"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

func main() {
	run.Program("waypoint", command().ExecuteContext)
}

func command() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "waypoint --xds-address HOST:PORT --root-cert FILE --token-file FILE --gateway NAME --pod-name NAME --pod-namespace NAMESPACE",
		Short: "Route, secure and observe the requests of services at L7",
		Long: `A waypoint takes the connections that node agents send it in tunnels, reads the
requests in them, and sends each to an endpoint as VirtualServices, DestinationRules,
HTTPRoutes and AuthorizationPolicies say. The control plane sends it these as Envoy's
xDS; Istio's control plane can, too.

With --bootstrap it is configured by a file in the form of Envoy's bootstrap instead,
with static resources, an ADS server without TLS, or both: for trying it alone.`,
		Example: `  # As a pod of the Gateway "waypoint" in namespace shop.
  waypoint --xds-address 10.0.0.2:15012 --root-cert root.pem --token-file token \
    --gateway waypoint --pod-name waypoint-1 --pod-namespace shop --pod-ip 10.240.0.9

  # A plain Envoy in the waypoint's place: certificates and xDS on a Unix socket.
  waypoint sds --socket /run/fairlead/sds.sock --bootstrap-out envoy.json ...

  # What is it waiting for, and what does it know?
  curl localhost:15021/healthz/ready
  curl localhost:15000/config_dump`,
		Version:       telemetry.Version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, level, err := c.logger(cmd)
			if err != nil {
				return run.Usage(err)
			}
			if c.bootstrap != "" {
				return serveBootstrap(cmd.Context(), c, level, log)
			}
			if err := c.complete(); err != nil {
				return run.Usage(err)
			}
			return serve(cmd.Context(), c, level, log)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return run.Usage(err) })
	c.bind(cmd.Flags())
	c.bindServing(cmd.Flags())
	cmd.AddCommand(sdsCommand())
	return cmd
}

// logger makes the logger at the level of the command line.
func (c *config) logger(cmd *cobra.Command) (*slog.Logger, *level.Levels, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, nil, fmt.Errorf("--log-level: %q: want debug, info, warn or error", c.logLevel)
	}
	levels := level.New(l)
	return slog.New(levels.Handler(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug}))), levels, nil
}
