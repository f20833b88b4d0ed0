package push

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statusv3 "github.com/envoyproxy/go-control-plane/envoy/service/status/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// The types by which istioctl asks a control plane about its clients: who is in sync,
// and what one of them was sent.
const (
	debugPrefix   = "istio.io/debug/"
	syncType      = debugPrefix + "syncz"
	dumpType      = debugPrefix + "config_dump"
	maxInspectors = 4
)

// ClientsType is the type by which our own command line asks for [Server.Clients]: the
// answer is one resource, their JSON.
const ClientsType = "fairlead.dev/debug/syncz"

// inspectorAccount is the service account of the mesh's namespace of which istioctl has
// tokens made. Those of others prove no person: a node agent has tokens of the CNI plugin's
// account made, which are bound to no pod either.
const inspectorAccount = "default"

// inspector tells whether who calls is a person's tool: a token of the mesh's own
// namespace that is bound to no pod, such as `istioctl proxy-status` has made for it.
func (s *Server) inspector(ctx context.Context) bool {
	md, _ := metadata.FromIncomingContext(ctx)
	bearer, err := token.Bearer(md.Get("authorization"))
	if err != nil {
		return false
	}
	_, err = s.o.Reviewer.Review(ctx, bearer)
	var unbound *token.UnboundError
	return errors.As(err, &unbound) && unbound.ServiceAccount == inspectorAccount && slices.ContainsFunc(s.o.NodeAccounts, func(account string) bool {
		namespace, _, _ := strings.Cut(account, "/")
		return namespace == unbound.Namespace
	})
}

// inspect answers what istioctl asks, until it has heard enough.
func (s *Server) inspect(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	select {
	case s.inspectors <- struct{}{}:
	default:
		return status.Errorf(codes.ResourceExhausted, "%d inspect this control plane already", maxInspectors)
	}
	defer func() { <-s.inspectors }()
	for sent := 0; ; {
		q, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var answer []*anypb.Any
		switch {
		case sent > 0 && q.GetResponseNonce() == strconv.Itoa(sent):
			continue // it took the answer; a question has a nonce of istioctl's own
		case q.GetTypeUrl() == syncType:
			answer, err = s.syncs()
		case q.GetTypeUrl() == ClientsType:
			answer, err = s.list()
		case q.GetTypeUrl() == dumpType && len(q.GetResourceNames()) == 1:
			answer, err = s.dump(q.GetResourceNames()[0])
		default:
			return status.Errorf(codes.PermissionDenied, "type %q is not served to a token without a pod; these are: %s, %s, and %s of one proxy", q.GetTypeUrl(), syncType, ClientsType, dumpType)
		}
		if err != nil {
			return err
		}
		who, err := json.Marshal(map[string]any{"Component": "istiod", "ID": s.o.Identity, "Info": map[string]string{"version": telemetry.Version}})
		if err != nil {
			return err
		}
		sent++
		err = stream.Send(&discovery.DiscoveryResponse{
			TypeUrl: q.GetTypeUrl(), Resources: answer, Nonce: strconv.Itoa(sent), ControlPlane: &corev3.ControlPlane{Identifier: string(who)},
		})
		if err != nil {
			return err
		}
	}
}

// urls are the types by their kinds in a [Sync].
var urls = func() map[string]string {
	out := map[string]string{}
	for _, url := range slices.Concat(meshTypes, envoyTypes) {
		out[kindOf(url)] = url
	}
	return out
}()

// list is who is connected, as the page /debug/syncz shows it.
func (s *Server) list() ([]*anypb.Any, error) {
	all, err := json.Marshal(s.Clients())
	if err != nil {
		return nil, fmt.Errorf("who is connected: %w", err)
	}
	return []*anypb.Any{{TypeUrl: ClientsType, Value: all}}, nil
}

// syncs is who is connected and in sync, in the form of Envoy's status discovery.
func (s *Server) syncs() ([]*anypb.Any, error) {
	var out []*anypb.Any
	for _, c := range s.Clients() {
		namespace, _, _ := strings.Cut(c.Account, "/")
		about, err := structpb.NewStruct(map[string]any{"CLUSTER_ID": c.Cluster, "NAMESPACE": namespace, "ISTIO_VERSION": c.Version})
		if err != nil {
			return nil, fmt.Errorf("what is known of %s: %w", c.Pod, err)
		}
		one := &statusv3.ClientConfig{Node: &corev3.Node{Id: c.Pod + "." + namespace, Metadata: about}}
		for kind, t := range c.Types {
			one.GenericXdsConfigs = append(one.GenericXdsConfigs, t.status(urls[kind]))
		}
		slices.SortFunc(one.GenericXdsConfigs, func(a, b *statusv3.ClientConfig_GenericXdsConfig) int { return strings.Compare(a.TypeUrl, b.TypeUrl) })
		packed, err := anypb.New(one)
		if err != nil {
			return nil, err
		}
		out = append(out, packed)
	}
	return out, nil
}

// status is a type's state in Envoy's words.
func (t TypeSync) status(url string) *statusv3.ClientConfig_GenericXdsConfig {
	out := &statusv3.ClientConfig_GenericXdsConfig{TypeUrl: url}
	if !t.AckedAt.IsZero() {
		out.LastUpdated = timestamppb.New(t.AckedAt)
	}
	switch {
	case len(t.Refused) > 0:
		out.ConfigStatus, out.ErrorState = statusv3.ConfigStatus_ERROR, &adminv3.UpdateFailureState{Details: t.Nack}
	case len(t.Waiting) > 0:
		out.ConfigStatus = statusv3.ConfigStatus_STALE
	case t.Acked == "":
		out.ConfigStatus = statusv3.ConfigStatus_NOT_SENT
	default:
		out.ConfigStatus = statusv3.ConfigStatus_SYNCED
	}
	return out
}

// dump is what the waypoint "pod.namespace" was sent, as Envoy would show it.
func (s *Server) dump(name string) ([]*anypb.Any, error) {
	var waypoint *served
	s.mu.Lock()
	for c := range s.clients {
		if c.caller.Pod+"."+c.caller.Namespace == name {
			c.mu.Lock()
			waypoint = c.waypoint
			c.mu.Unlock()
		}
	}
	s.mu.Unlock()
	if waypoint == nil {
		return nil, status.Errorf(codes.NotFound, "no waypoint %q is connected to this replica", name)
	}
	clusters, listeners, routes := &adminv3.ClustersConfigDump{}, &adminv3.ListenersConfigDump{}, &adminv3.RoutesConfigDump{}
	waypoint.log.each(ClusterType, func(r *resource, packed *anypb.Any) {
		clusters.DynamicActiveClusters = append(clusters.DynamicActiveClusters, &adminv3.ClustersConfigDump_DynamicCluster{VersionInfo: r.version, Cluster: packed})
	})
	waypoint.log.each(ListenerType, func(r *resource, packed *anypb.Any) {
		listeners.DynamicListeners = append(listeners.DynamicListeners, &adminv3.ListenersConfigDump_DynamicListener{
			Name: r.name, ActiveState: &adminv3.ListenersConfigDump_DynamicListenerState{VersionInfo: r.version, Listener: packed},
		})
	})
	waypoint.log.each(RouteType, func(r *resource, packed *anypb.Any) {
		routes.DynamicRouteConfigs = append(routes.DynamicRouteConfigs, &adminv3.RoutesConfigDump_DynamicRouteConfig{VersionInfo: r.version, RouteConfig: packed})
	})
	var out []*anypb.Any
	for _, m := range []proto.Message{clusters, listeners, routes} {
		packed, err := anypb.New(m)
		if err != nil {
			return nil, err
		}
		out = append(out, packed)
	}
	return out, nil
}

// each goes through a type's resources.
func (l *Log) each(typeURL string, do func(r *resource, packed *anypb.Any)) {
	l.mu.RLock()
	all := l.allLocked(typeURL).resources
	l.mu.RUnlock()
	for _, r := range all {
		do(r, &anypb.Any{TypeUrl: typeURL, Value: slices.Clone(r.value)})
	}
}
