package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/sds"
)

func sdsCommand() *cobra.Command {
	var c config
	var socket, out, admin, readiness, metrics string
	cmd := &cobra.Command{
		Use:   "sds --socket PATH --bootstrap-out FILE",
		Short: "Give a plain Envoy what it needs to stand in the waypoint's place",
		Long: `Serves the waypoint's certificate and the mesh's roots on a Unix socket, as Envoy's
secret discovery (names "default" and "ROOTCA"), and relays discovery there with the
pod's token. The keys stay on this machine. It writes the file that Envoy starts with:

  envoy --config-path envoy.json`,
		Example: `  waypoint sds --socket /run/fairlead/sds.sock --bootstrap-out envoy.json --xds-address 10.0.0.2:15012 \
    --root-cert root.pem --token-file token --gateway waypoint --pod-name waypoint-1 --pod-namespace shop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, _, err := c.logger(cmd)
			if err != nil {
				return run.Usage(err)
			}
			if err := errors.Join(c.complete(), required("--socket", socket), required("--bootstrap-out", out)); err != nil {
				return run.Usage(err)
			}
			pod := c.pod()
			b := sds.Bootstrap{NodeID: pod.NodeID(), Cluster: c.gateway + "." + c.podNamespace, Metadata: pod.PlainMetadata(), Socket: socket}
			for _, a := range []struct {
				flag, value string
				to          *netip.AddrPort
			}{{"--envoy-admin-address", admin, &b.Admin}, {"--envoy-readiness-address", readiness, &b.Readiness}, {"--envoy-metrics-address", metrics, &b.Metrics}} {
				if a.value == "" {
					continue
				}
				if *a.to, err = netip.ParseAddrPort(a.value); err != nil {
					return run.Usage(fmt.Errorf("%s: %w", a.flag, err))
				}
			}
			file, err := b.JSON()
			if err != nil {
				return run.Usage(err)
			}
			xdsConn, certificates, done, err := connect(c, log)
			if err != nil {
				return run.Usage(err)
			}
			defer done()
			certificates.Acquire(c.identity())
			server, err := sds.Listen(sds.Options{Socket: socket, Identity: c.identity(), Certificates: certificates, ControlPlane: xdsConn, Logger: log})
			if err != nil {
				return run.Usage(err)
			}
			if err := os.WriteFile(out, file, 0o644); err != nil {
				return run.Usage(fmt.Errorf("--bootstrap-out: %w", err))
			}
			group := run.NewGroup(log, envoyEnds+10*time.Second)
			group.Add("secrets", func(ctx context.Context) error { return server.Run(ctx) })
			// Stopped first: Envoy ends while it still has its control plane.
			group.Add("envoy", func(ctx context.Context) error {
				<-ctx.Done()
				return leave("http://"+b.Admin.String(), log)
			})
			return group.Run(cmd.Context())
		},
	}
	c.bind(cmd.Flags())
	cmd.Flags().StringVar(&socket, "socket", "", "the Unix socket to serve on (required)")
	cmd.Flags().StringVar(&out, "bootstrap-out", "", "where Envoy's bootstrap is written (required)")
	cmd.Flags().StringVar(&admin, "envoy-admin-address", "127.0.0.1:15000", "the address of Envoy's admin page, on loopback")
	cmd.Flags().StringVar(&readiness, "envoy-readiness-address", "0.0.0.0:15021", "where Envoy answers GET /healthz/ready")
	cmd.Flags().StringVar(&metrics, "envoy-metrics-address", "0.0.0.0:15020", "where Envoy answers GET /metrics")
	return cmd
}

// envoyEnds bounds the wait for the Envoy that is to end with this.
const envoyEnds = 30 * time.Second

// leave has Envoy be unready and ask its clients to leave, and waits until it has ended:
// it takes no part in ending otherwise, but stops at once when it is told to.
func leave(admin string, log *slog.Logger) error {
	client := http.Client{Timeout: time.Second}
	ask := func(method, path string) error {
		r, err := http.NewRequest(method, admin+path, nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		return answer.Body.Close()
	}
	if err := ask(http.MethodPost, "/healthcheck/fail"); err != nil {
		log.Info("Envoy has ended or does not answer", "err", err)
		return nil
	}
	late := time.NewTimer(envoyEnds)
	defer late.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for ask(http.MethodGet, "/server_info") == nil {
		select {
		case <-look.C:
		case <-late.C:
			return nil
		}
	}
	return nil
}

func required(flag, value string) error {
	if value == "" {
		return fmt.Errorf("%s is required", flag)
	}
	return nil
}
