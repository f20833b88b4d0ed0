// The control plane: objects in, workloads, policies and certificates out.
package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

func main() {
	run.Program("control-plane", command().ExecuteContext)
}

func command() *cobra.Command {
	var c config
	cmd := &cobra.Command{
		Use:   "control-plane {--config-dir DIR | --kubeconfig FILE | --in-cluster}",
		Short: "Serve workloads, policies and certificates to node agents",
		Long: `The control plane follows a Kubernetes API server, or a directory of ordinary
Kubernetes and Istio YAML, and serves what follows from it to the node agents: workloads and
policies by delta xDS, certificates by Istio's certificate service, on one port.`,
		Example: `  # As a pod of the cluster that it serves.
  control-plane --in-cluster

  # Serve ./cluster; agents prove themselves with tokens signed by tokens.pem's key.
  control-plane --config-dir ./cluster --state-dir /var/lib/fairlead --token-keys tokens.pem

  # With a plugged-in CA, as Istio's cacerts.
  control-plane --config-dir ./cluster --state-dir /var/lib/fairlead --token-keys tokens.pem \
    --ca-cert ca-cert.pem --ca-key ca-key.pem --cert-chain cert-chain.pem --root-certs root-cert.pem

  # Who is connected and in sync?
  curl localhost:15014/debug/syncz`,
		Version:       telemetry.Version,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.complete(); err != nil {
				return run.Usage(err)
			}
			levels := level.New(c.level)
			log := slog.New(levels.Handler(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelDebug})))
			return serve(cmd.Context(), c, levels, log)
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return run.Usage(err) })
	c.bind(cmd.Flags())
	return cmd
}
