package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// stopTimeout bounds how long one part may take to stop.
const stopTimeout = 10 * time.Second

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
	entrance, err := newEntrance(changes)
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
	server := newServer(entrance, serving)
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
