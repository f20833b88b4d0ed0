package envoy

import (
	"net/netip"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Options is what the model does not say: who asks.
type Options struct {
	// IstioExtensions: the client is an Envoy with Istio's extensions.
	IstioExtensions bool
	// Locality is where the waypoint's pod runs. Failover and distribution over
	// localities depend on it; without it all endpoints have one priority.
	Locality Locality
	// Labels are those of the waypoint's pod, for failoverPriority and the
	// workloadSelector of DestinationRules. The label that names the Gateway is
	// known without.
	Labels map[string]string
	// Parts are what other packages translate.
	Parts Parts
}

// Locality is a place in the topology.
type Locality struct{ Region, Zone, SubZone string }

// Parts are the parts of a waypoint's configuration that are translated
// elsewhere. A nil function gives nothing, or what its comment says. The service
// and port are nil for traffic to workloads' own addresses.
type Parts struct {
	// Routes are the routes of an HTTP port, by default one to the service's own
	// cluster. Name is overwritten with ClusterName(HTTP, ...). The configuration,
	// its virtual hosts and routes must be the generator's to change; what these
	// point to is not touched.
	Routes func(s *model.Service, p *model.Port) (Routes, error)
	// Streams are the routes of a port whose connections are not read as requests,
	// by default one to the service's own cluster.
	Streams func(s *model.Service, p *model.Port) (Streams, error)
	// HTTPFilters stand first in the chain, before the fault filter.
	HTTPFilters func(s *model.Service, p *model.Port) ([]*hcmv3.HttpFilter, error)
	// NetworkFilters stand before the TCP proxy.
	NetworkFilters func(s *model.Service, p *model.Port) ([]*listenerv3.Filter, error)
	// AccessLogs are those of the connection manager or the TCP proxy.
	AccessLogs func(s *model.Service, p *model.Port) ([]*accesslogv3.AccessLog, error)
}

// Backend is a service that routes lead to. Clusters are made for its port and
// the subsets of its rule.
type Backend struct {
	Service *model.Service
	Port    uint32
	// Kind is HTTP for a route of requests, TCP for one of connections.
	Kind Kind
	// Hashed: the cluster of Subset is to choose by the route's hash, whatever its
	// rule says, unless that hashes too.
	Hashed bool
	Subset string
}

// Routes are the routes of one HTTP port.
type Routes struct {
	Config   *routev3.RouteConfiguration
	Backends []Backend
}

// Streams are the routes of one port for connections, the first that matches
// counts. One without server names matches every connection; without any, what
// nothing matches is closed.
type Streams struct {
	Routes   []Stream
	Backends []Backend
}

// Stream is one route for connections.
type Stream struct {
	// ServerNames are exact names or "*.suffix", of a TLS client hello.
	ServerNames []string
	// Callers must all match the caller's SPIFFE ID: exact, by prefix or by a regular
	// expression. Sources, if there are any, have the caller's address.
	Callers []*matcherv3.StringMatcher
	Sources []netip.Prefix
	// Clusters are where connections go, by weight.
	Clusters []*tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight
	// IdleTimeout closes a connection without traffic; nil: one hour.
	IdleTimeout *durationpb.Duration
}

// Resources are all of one waypoint, by name.
type Resources struct {
	Listeners map[string]*listenerv3.Listener
	Clusters  map[string]*clusterv3.Cluster
	Endpoints map[string]*endpointv3.ClusterLoadAssignment
	Routes    map[string]*routev3.RouteConfiguration
}
