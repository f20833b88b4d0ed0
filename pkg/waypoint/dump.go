package waypoint

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// held is a resource as it came, for /config_dump.
type held struct {
	resource *anypb.Any
	version  string
	at       time.Time
	refused  error // why it is not in effect, or nil
}

// Dump is Envoy's /config_dump: what was received, and what of it was refused.
func (e *Engine) Dump() (any, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	dump := &adminv3.ConfigDump{}
	for _, m := range []proto.Message{e.clustersDump(), e.listenersDump(), e.routesDump(), e.endpointsDump()} {
		a, err := anypb.New(m)
		if err != nil {
			return nil, err
		}
		dump.Configs = append(dump.Configs, a)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(dump)
	return json.RawMessage(text), err
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
	return &adminv3.UpdateFailureState{Details: h.refused.Error(), LastUpdateAttempt: timestamppb.New(h.at), FailedConfiguration: h.resource, VersionInfo: h.version}
}

func (e *Engine) clustersDump() proto.Message {
	d := &adminv3.ClustersConfigDump{}
	e.sorted(xds.ClusterType, func(_ string, h held) {
		d.DynamicActiveClusters = append(d.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{
			VersionInfo: h.version, Cluster: h.resource, LastUpdated: timestamppb.New(h.at), ErrorState: h.failure(),
		})
	})
	return d
}

func (e *Engine) listenersDump() proto.Message {
	d := &adminv3.ListenersConfigDump{}
	e.sorted(xds.ListenerType, func(name string, h held) {
		d.DynamicListeners = append(d.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name:        name,
			ActiveState: &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: h.version, Listener: h.resource, LastUpdated: timestamppb.New(h.at)},
			ErrorState:  h.failure(),
		})
	})
	return d
}

func (e *Engine) routesDump() proto.Message {
	d := &adminv3.RoutesConfigDump{}
	e.sorted(xds.RouteType, func(_ string, h held) {
		d.DynamicRouteConfigs = append(d.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{
			VersionInfo: h.version, RouteConfig: h.resource, LastUpdated: timestamppb.New(h.at), ErrorState: h.failure(),
		})
	})
	return d
}

func (e *Engine) endpointsDump() proto.Message {
	d := &adminv3.EndpointsConfigDump{}
	e.sorted(xds.EndpointType, func(_ string, h held) {
		d.DynamicEndpointConfigs = append(d.DynamicEndpointConfigs, &adminv3.EndpointsConfigDump_DynamicEndpointConfig{
			VersionInfo: h.version, EndpointConfig: h.resource, LastUpdated: timestamppb.New(h.at), ErrorState: h.failure(),
		})
	})
	return d
}
