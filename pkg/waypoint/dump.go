package waypoint

import (
	"maps"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// held is a resource as it came, for /config_dump.
type held struct {
	active  *anypb.Any // what is in effect, or nil: nothing
	version string
	at      time.Time
	static  bool // of the bootstrap file

	// Of an update that was refused, or in part; nil and "" without one.
	failed        *anypb.Any
	failedVersion string
	refused       error
	failedAt      time.Time
}

// hold keeps a resource as it came, and beside it what is in effect.
func (e *Engine) hold(typeURL, name, version string, resource *anypb.Any, refused error, inEffect bool) {
	of := e.held[typeURL]
	if of == nil {
		of = map[string]held{}
		e.held[typeURL] = of
	}
	h, now := of[name], time.Now()
	h.refused, h.failed, h.failedVersion = refused, nil, ""
	if inEffect {
		h.active, h.version, h.at = resource, version, now
	}
	if refused != nil {
		h.failed, h.failedVersion, h.failedAt = resource, version, now
		e.refusals++
	}
	of[name] = h
}

// Dumps are the sections of Envoy's /config_dump: what was received, what of it is in
// effect, and why the rest is not. Endpoints are there where they are asked for.
func (e *Engine) Dumps(endpoints bool) []proto.Message {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := []proto.Message{e.clustersDump()}
	if endpoints {
		out = append(out, e.endpointsDump())
	}
	return append(out, e.listenersDump(), e.routesDump())
}

// sorted goes over the resources of a type by name.
func (e *Engine) sorted(typeURL string, each func(name string, h held)) {
	for _, name := range slices.Sorted(maps.Keys(e.held[typeURL])) {
		each(name, e.held[typeURL][name])
	}
}

func (h held) failure() *adminv3.UpdateFailureState {
	if h.refused == nil {
		return nil
	}
	return &adminv3.UpdateFailureState{Details: h.refused.Error(), LastUpdateAttempt: timestamppb.New(h.failedAt), FailedConfiguration: h.failed, VersionInfo: h.failedVersion}
}

func (h held) updated() *timestamppb.Timestamp {
	if h.active == nil {
		return nil
	}
	return timestamppb.New(h.at)
}

func (e *Engine) clustersDump() proto.Message {
	d := &adminv3.ClustersConfigDump{}
	e.sorted(xds.ClusterType, func(name string, h held) {
		if h.static {
			d.StaticClusters = append(d.StaticClusters, &adminv3.ClustersConfigDump_StaticCluster{Cluster: h.active, LastUpdated: h.updated()})
			return
		}
		c := &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: h.version, Cluster: h.active, LastUpdated: h.updated(), ErrorState: h.failure()}
		if h.active != nil && e.o.Clusters.Get(name) == nil {
			d.DynamicWarmingClusters = append(d.DynamicWarmingClusters, c)
			return
		}
		d.DynamicActiveClusters = append(d.DynamicActiveClusters, c)
	})
	return d
}

func (e *Engine) listenersDump() proto.Message {
	d := &adminv3.ListenersConfigDump{}
	e.sorted(xds.ListenerType, func(name string, h held) {
		if h.static {
			d.StaticListeners = append(d.StaticListeners, &adminv3.ListenersConfigDump_StaticListener{Listener: h.active, LastUpdated: h.updated()})
			return
		}
		l := &adminv3.ListenersConfigDump_DynamicListener{Name: name, ErrorState: h.failure()}
		if h.active != nil {
			l.ActiveState = &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: h.version, Listener: h.active, LastUpdated: h.updated()}
		}
		d.DynamicListeners = append(d.DynamicListeners, l)
	})
	return d
}

// routesDump has the tables that came by name, and those inside of listeners.
func (e *Engine) routesDump() proto.Message {
	d := &adminv3.RoutesConfigDump{}
	for _, name := range slices.Sorted(maps.Keys(e.listeners)) {
		at := e.held[xds.ListenerType][name].updated()
		for _, r := range inlineRoutes(e.listeners[name]) {
			if a, err := anypb.New(r); err == nil {
				d.StaticRouteConfigs = append(d.StaticRouteConfigs, &adminv3.RoutesConfigDump_StaticRouteConfig{RouteConfig: a, LastUpdated: at})
			}
		}
	}
	e.sorted(xds.RouteType, func(_ string, h held) {
		d.DynamicRouteConfigs = append(d.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: h.version, RouteConfig: h.active, LastUpdated: h.updated(), ErrorState: h.failure(),
		})
	})
	return d
}

func inlineRoutes(l *listening) (out []*routev3.RouteConfiguration) {
	for _, fc := range withDefault(l.config) {
		if r := connectionManager(fc).GetRouteConfig(); r != nil {
			out = append(out, r)
		}
	}
	return out
}

func (e *Engine) endpointsDump() proto.Message {
	d := &adminv3.EndpointsConfigDump{}
	e.sorted(xds.EndpointType, func(_ string, h held) {
		d.DynamicEndpointConfigs = append(d.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: h.version, EndpointConfig: h.active, LastUpdated: h.updated(), ErrorState: h.failure(),
		})
	})
	return d
}
