package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3" // files may name it
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// serveBootstrap serves by a file in the form of Envoy's bootstrap: its static
// resources, and what an ADS server without TLS sends, if it names one.
func serveBootstrap(ctx context.Context, c config, levels *level.Levels, log *slog.Logger) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := run.RaiseOpenFiles(); err != nil {
		log.Warn("the limit of open files is low", "err", err)
	}
	b, err := readBootstrap(c.bootstrap)
	if err != nil {
		return run.Usage(err)
	}
	p, err := newProxy(proxyOptions{config: c, levels: levels, log: log, quit: quit, bootstrap: b})
	if err != nil {
		return err
	}
	defer p.close()
	group := run.NewGroup(log, c.drain+10*time.Second)
	group.Add("admin", p.pages.Run)
	if err := p.static(b); err != nil {
		return run.Usage(fmt.Errorf("%s: %w", c.bootstrap, err))
	}
	if b.GetDynamicResources().GetAdsConfig() != nil {
		conn, err := adsConn(b)
		if err != nil {
			return run.Usage(fmt.Errorf("%s: %w", c.bootstrap, err))
		}
		defer conn.Close()
		synced := newSynced(p.ready, xds.ClusterType, xds.ListenerType)
		client, err := xds.NewClient(xds.Options{
			Conn: conn, Applier: noMesh{}, Envoy: p.engine, NodeID: b.GetNode().GetId(), Metadata: b.GetNode().GetMetadata().AsMap(), Synced: synced.mark, Logger: log,
		})
		if err != nil {
			return err
		}
		p.wanted.set(client.Want)
		group.Add("discovery", client.Run)
		group.Add("first configuration", func(ctx context.Context) error { return awaitNamed(ctx, synced, client, log) })
	}
	group.Add("proxy", p.run)
	log.Info("waypoint started", "bootstrap", c.bootstrap, "version", telemetry.Version)
	return group.Run(ctx)
}

func readBootstrap(path string) (*bootstrapv3.Bootstrap, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--bootstrap: %w", err)
	}
	asJSON, err := yaml.YAMLToJSON(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	b := &bootstrapv3.Bootstrap{}
	if err := protojson.Unmarshal(asJSON, b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// static takes the resources of the file; all must be right.
func (p *proxy) static(b *bootstrapv3.Bootstrap) error {
	ads := b.GetDynamicResources().GetAdsConfig()
	for i, c := range b.GetStaticResources().GetClusters() {
		if ads != nil && c.GetName() == adsCluster(b) {
			continue
		}
		if err := p.engine.Apply(c); err != nil {
			return fmt.Errorf("static_resources.clusters[%d]: %w", i, err)
		}
	}
	for i, l := range b.GetStaticResources().GetListeners() {
		if err := p.engine.Apply(l); err != nil {
			return fmt.Errorf("static_resources.listeners[%d] %s: %w", i, l.GetName(), err)
		}
	}
	return nil
}

func adsCluster(b *bootstrapv3.Bootstrap) string {
	for _, s := range b.GetDynamicResources().GetAdsConfig().GetGrpcServices() {
		return s.GetEnvoyGrpc().GetClusterName()
	}
	return ""
}

func adsConn(b *bootstrapv3.Bootstrap) (*grpc.ClientConn, error) {
	name := adsCluster(b)
	for _, c := range b.GetStaticResources().GetClusters() {
		if c.GetName() != name {
			continue
		}
		for _, l := range c.GetLoadAssignment().GetEndpoints() {
			for _, e := range l.GetLbEndpoints() {
				a := e.GetEndpoint().GetAddress().GetSocketAddress()
				return grpc.NewClient(net.JoinHostPort(a.GetAddress(), strconv.Itoa(int(a.GetPortValue()))), grpc.WithTransportCredentials(insecure.NewCredentials()))
			}
		}
	}
	return nil, errors.New("dynamic_resources.ads_config: its cluster is not among static_resources, or has no endpoint")
}

// noMesh takes workloads and policies where there is no mesh to have any.
type noMesh struct{}

var _ xds.Applier = noMesh{}

func (noMesh) Apply(mesh.Delta) error { return nil }

func (noMesh) HasPolicy(string) bool { return false }
