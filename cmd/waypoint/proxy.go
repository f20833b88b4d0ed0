package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/pages"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/peers"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/record"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

type proxyOptions struct {
	config config
	levels *level.Levels
	log    *slog.Logger
	quit   func()
	// Of a mesh, or nil without one.
	view      *peers.View
	tunnels   func(context.Context, cluster.Tunnel) (codec.Conn, *tls.ConnectionState, error)
	secrets   cluster.Secrets
	shown     func() []pages.Secret  // for the admin page, or nil
	bootstrap *bootstrapv3.Bootstrap // must be non-nil
	tunnelTLS *tls.Config
	// included are the statistics of clusters that are shown; nil: all.
	included func(name string) bool
}

// proxy is the engine with its window.
type proxy struct {
	o        proxyOptions
	engine   *waypoint.Engine
	clusters *cluster.Manager
	records  *record.Factory
	pages    *admin.Server
	ready    *admin.Readiness
	wanted   wanted
}

// wanted passes on what the engine asks for, once there is who is asked.
type wanted struct {
	mu   sync.Mutex
	want func(typeURL string, names []string)
}

func (w *wanted) set(want func(string, []string)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want = want
}

func (w *wanted) tell(typeURL string, names []string) {
	w.mu.Lock()
	want := w.want
	w.mu.Unlock()
	if want != nil {
		want(typeURL, names)
	}
}

func newProxy(o proxyOptions) (p *proxy, err error) {
	p = &proxy{o: o, ready: &admin.Readiness{}}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := telemetry.RegisterBuild(registry, "waypoint"); err != nil {
		return nil, err
	}
	if p.records, err = record.NewFactory(record.Options{Registry: registry, Stdout: os.Stdout, Cluster: p.clusterMetadata, Logger: o.log}); err != nil {
		return nil, err
	}
	co := cluster.Options{Dial: dial, Secrets: o.secrets, TrustDomain: o.config.trustDomain, Logger: o.log}
	eo := waypoint.Options{Secrets: o.secrets, TunnelTLS: o.tunnelTLS, Recorders: p.records, Want: p.wanted.tell, Linger: linger, Logger: o.log}
	if o.tunnels != nil {
		co.Tunnel = o.tunnels
	}
	if o.view != nil {
		co.Expected = o.view.Expected
		eo.Self = o.config.identity().String()
		eo.Source = o.view.Workload
		eo.Authorize = router.Authorizer(func(c *streaminfo.Connection, to netip.AddrPort, newInMesh bool) error {
			return o.view.Authorize(c, to, newInMesh)
		})
	}
	if p.clusters, err = cluster.NewManager(co); err != nil {
		return nil, err
	}
	eo.Clusters = p.clusters
	if p.engine, err = waypoint.New(eo); err != nil {
		return nil, err
	}
	envoy, err := pages.New(pages.Options{
		Engine: p.engine, Clusters: p.clusters, Included: o.included, Bootstrap: o.bootstrap, Secrets: o.shown, Pending: p.ready.Pending, Level: o.levels, Registry: registry,
		SetHealth: func(healthy bool) { p.ready.Set("the admin page says unhealthy", !healthy) }, Version: telemetry.Version, Logger: o.log,
	})
	if err != nil {
		return nil, err
	}
	p.pages, err = admin.Listen(admin.Options{
		AdminAddress: o.config.adminAddress, MetricsAddress: o.config.metricsAddress, ReadinessAddress: o.config.readinessAddress,
		Registry: registry, Readiness: p.ready, Quit: o.quit, Logger: o.log, Pages: envoy.Handlers(),
	})
	return p, err
}

// clusterMetadata is a cluster's, or nil.
func (p *proxy) clusterMetadata(name string) streaminfo.Metadata {
	if c := p.clusters.Get(name); c != nil {
		return c.Metadata()
	}
	return nil
}

// run waits for the end and then drains.
func (p *proxy) run(ctx context.Context) error {
	<-ctx.Done()
	drain, cancel := context.WithTimeout(context.Background(), p.o.config.drain)
	defer cancel()
	p.engine.Drain(drain, min(lameDuck, p.o.config.drain/2))
	return nil
}

func (p *proxy) close() {
	p.clusters.Close()
	p.records.Close()
}

// lameDuck is how long a waypoint that ends still takes connections: that of Istio's
// terminationDrainDuration.
const lameDuck = 5 * time.Second

// linger is how long what the control plane has removed still serves who has not heard
// of it.
const linger = 10 * time.Second

// keepAlive is Istio's of sockets.
const keepAlive = 3 * time.Minute

func dialTCP(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	d := net.Dialer{KeepAlive: keepAlive}
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func dial(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
	c, err := dialTCP(ctx, to)
	if err != nil {
		return nil, err
	}
	return codec.TCPConn{TCPConn: c}, nil
}
