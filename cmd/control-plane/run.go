package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// stopTimeout bounds how long one part may take to stop.
const stopTimeout = 10 * time.Second

// maxRequest bounds one request: a reconnecting agent names all that it holds, at some
// ninety bytes each.
const maxRequest = 16 << 20

const (
	// window is how much of a stream, or a connection, may come before it is asked for:
	// the least that gRPC takes.
	window = 64 << 10
	// beginning bounds what clients make the server hold that have come and not been
	// told yet what they lack.
	beginning = 64 << 20
	// maxHeaders bounds a call's: they are a token and a few names.
	maxHeaders = 64 << 10
	// idleAfter is how long a connection stays on which nothing is called.
	idleAfter = 5 * time.Minute
)

// serve makes the parts in order and runs them until ctx ends.
func serve(ctx context.Context, c config, levels *level.Levels, log *slog.Logger) error {
	if err := run.LimitMemory(); err != nil {
		log.Warn("limit of memory", "err", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := telemetry.RegisterBuild(registry, "control-plane"); err != nil {
		return err
	}
	b, err := openBackend(c, registry, log)
	if err != nil {
		return err
	}
	changes := push.NewLog()
	waypoints := push.NewWaypoints(log)
	publisher, err := newPublisher(c, b, changes, waypoints, registry, log)
	if err != nil {
		return err
	}
	entrance, err := door.New(door.Options{
		Turns: 32 + 48*runtime.GOMAXPROCS(0), Memory: beginning,
		// What a stream says first is held as it came, and once more to be read.
		Size:    func() int64 { return window + 2*changes.Naming() },
		Crowded: collector(),
	})
	if err != nil {
		return err
	}
	xds, err := push.NewServer(push.Options{Log: changes, Identity: c.identity, Reviewer: b.reviewer, NodeAccounts: c.nodeAccounts, Waypoints: waypoints, Door: entrance, Registry: registry, Logger: log})
	if err != nil {
		return err
	}
	certificates, err := ca.NewService(ca.Options{
		Authority: b.authority.Current, Reviewer: b.reviewer, Pods: b.pods, NodeAccounts: c.nodeAccounts, Registry: registry, Logger: log,
		TrustDomain: func() string { return b.objects.Objects().Mesh.GetTrustDomain() },
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	serving, err := newServingCertificate(b.authority, c.dnsNames)
	if err != nil {
		return err
	}
	checks, err := newChecks(c, serving, registry, log)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.Creds(entrance.Credentials(credentials.NewTLS(serving.config()))),
		grpc.StreamInterceptor(func(service any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
			if !strings.HasPrefix(info.FullMethod, push.Service) {
				door.Pass(stream.Context())
			}
			return handle(service, stream)
		}),
		grpc.ForceServerCodecV2(push.Codec()),
		grpc.MaxRecvMsgSize(maxRequest),
		grpc.MaxConcurrentStreams(64),
		// There are thousands of connections, of which most say nothing most of the time:
		// TLS has a buffer of its own, and what is not asked for yet must not grow.
		grpc.ReadBufferSize(0), grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: idleAfter}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	)
	xds.Register(server)
	certificates.Register(server)

	ready := &admin.Readiness{}
	first, serves := ready.Wait("objects of the "+b.name), ready.Wait("a certificate authority")
	pages, err := admin.Listen(admin.Options{
		AdminAddress: c.adminAddress, MetricsAddress: c.metricsAddress, ReadinessAddress: c.readinessAddress,
		Registry: registry, Readiness: ready, Level: levels, Logger: log,
		Pages: map[string]http.HandlerFunc{
			"/metrics":       promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP,
			"/healthz/ready": ready.ServeHTTP,
			"/debug/syncz":   page(func() any { return xds.Clients() }),
			"/version":       page(func() any { return version() }),
			"/debug/config":  page(func() any { return publisher.problems() }),
		},
	})
	if err != nil {
		return err
	}

	group := run.NewGroup(log, stopTimeout)
	// The window first, so that everything after can be watched.
	group.Add("admin", pages.Run)
	b.addTo(group)
	// The objects are followed before they are served, and until after.
	group.Add("objects", b.objects.Run)
	// The first state is published before an agent can ask: an empty answer
	// would take away what it holds.
	group.Add("translation", func(ctx context.Context) error { return publisher.run(ctx, first) })
	group.Add("xds and ca", func(ctx context.Context) error {
		if !publisher.wait(ctx) || !waitAuthority(ctx, b.authority) {
			return nil
		}
		serves()
		log.Info("serving", "address", listener.Addr().String(), "objects", b.name)
		stopped := context.AfterFunc(ctx, func() {
			entrance.Close() // who waits for a handshake would be waited for
			server.Stop()
		})
		defer stopped()
		return server.Serve(listener)
	})
	group.Add("streams", func(ctx context.Context) error { return xds.Run(ctx, b.pods.Exists) })
	if checks != nil {
		// Objects are checked from when there is a certificate, by every replica.
		group.Add("webhook", func(ctx context.Context) error {
			if !waitAuthority(ctx, b.authority) {
				return nil
			}
			return checks.run(ctx)
		})
	}
	return group.Run(ctx)
}

// version is what the page /version says, for fairlead and for istioctl, which looks for
// the second part.
func version() any {
	return map[string]any{"version": telemetry.Version, "clientVersion": map[string]string{
		"version": telemetry.Version, "revision": "", "golang_version": runtime.Version(), "status": "", "tag": telemetry.Version,
	}}
}
