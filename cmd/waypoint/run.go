package main

import (
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"time"

	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/pages"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/peers"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// serve makes the parts in order and runs them until ctx ends.
func serve(ctx context.Context, c config, levels *level.Levels, log *slog.Logger) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := run.RaiseOpenFiles(); err != nil {
		log.Warn("the limit of open files is low", "err", err)
	}
	if err := run.LimitMemory(); err != nil {
		log.Warn("limit of memory", "err", err)
	}
	xdsConn, certificates, closeIdentity, err := connect(c, log)
	if err != nil {
		return run.Usage(err)
	}
	defer closeIdentity()
	self := c.identity()
	certificates.Acquire(self)
	defer certificates.Release(self)

	known, err := store.New(log)
	if err != nil {
		return err
	}
	view := peers.NewView(known, c.network, self)
	tunnels, err := hbone.NewPool(hbone.PoolOptions{Dial: dialTCP, TLS: func(k hbone.Key) *tls.Config {
		return certificates.ClientTLS(k.Source, hbone.SplitExpected(k.Expected))
	}})
	if err != nil {
		return err
	}
	defer tunnels.Close()
	included, err := includedOf(os.Getenv(statsMatcher))
	if err != nil {
		log.Error("which statistics of clusters are shown is not understood: none are", "err", err)
		included = func(string) bool { return false }
	}
	p, err := newProxy(proxyOptions{
		config: c, levels: levels, log: log, quit: quit, included: included, view: view, tunnels: cluster.Over(tunnels, self, ""),
		secrets: secrets{certificates, self}, tunnelTLS: certificates.ServerTLS(self), bootstrap: node(c),
		shown: func() []pages.Secret { return shown(certificates.Status()) },
	})
	if err != nil {
		return err
	}
	defer p.close()

	pod := c.pod()
	synced := newSynced(p.ready, xds.AuthorizationType, xds.AddressType, xds.ClusterType, xds.ListenerType)
	discovery, err := xds.NewClient(xds.Options{
		Conn: xdsConn, Applier: known, Envoy: p.engine, NodeID: pod.NodeID(), Metadata: pod.Metadata(), Synced: synced.mark, Logger: log,
	})
	if err != nil {
		return err
	}
	p.wanted.set(discovery.Want)

	group := run.NewGroup(log, c.drain+10*time.Second)
	// The window first and last.
	group.Add("admin", p.pages.Run)
	group.Add("discovery", discovery.Run)
	group.Add("first configuration", func(ctx context.Context) error { return awaitNamed(ctx, synced, discovery, log) })
	group.Add("certificate", func(ctx context.Context) error { return awaitCertificate(ctx, certificates, self, p.ready, log) })
	group.Add("review", func(ctx context.Context) error { return review(ctx, known, p.engine) })
	// Stopped second: no new connections, the old ones drain.
	group.Add("proxy", p.run)
	// Stopped first: whoever sends traffic here hears of it before it ends.
	group.Add("unready", func(ctx context.Context) error {
		<-ctx.Done()
		p.ready.Set("the waypoint stops", true)
		return nil
	})
	log.Info("waypoint started", "gateway", c.podNamespace+"/"+c.gateway, "pod", c.podName, "version", telemetry.Version)
	return group.Run(ctx)
}

// review has connections that go on looked at when workloads or policies change.
func review(ctx context.Context, known *store.Store, e *waypoint.Engine) error {
	for {
		changed := known.Snapshot().Changed()
		e.Review()
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// connect opens the ways to the control plane and the CA.
func connect(c config, log *slog.Logger) (*grpc.ClientConn, *identity.Manager, func(), error) {
	token := identity.Token{File: c.tokenFile, Cluster: c.clusterID}
	xdsConn, err := identity.Dial(c.xdsAddress, c.serverName, c.rootCert, token)
	if err != nil {
		return nil, nil, nil, err
	}
	caConn, err := identity.Dial(c.caAddress, c.serverName, c.rootCert, token)
	if err != nil {
		xdsConn.Close()
		return nil, nil, nil, err
	}
	m, err := identity.NewManager(identity.Options{CA: identity.NewOwnClient(caConn), RootFile: c.rootCert, Directory: c.certDir, TTL: c.certTTL, Logger: log})
	if err != nil {
		xdsConn.Close()
		caConn.Close()
		return nil, nil, nil, err
	}
	return xdsConn, m, func() {
		m.Close()
		xdsConn.Close()
		caConn.Close()
	}, nil
}
