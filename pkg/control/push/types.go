package push

import "strings"

// The types that are served: workload discovery to all, Envoy's to waypoints.
const (
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
	AddressType       = "type.googleapis.com/istio.workload.Address"

	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// meshTypes and envoyTypes are in the order in which what is new is sent: what
// is named comes before what names it.
var (
	meshTypes  = []string{AuthorizationType, AddressType}
	envoyTypes = []string{ClusterType, EndpointType, ListenerType, RouteType}
)

// kindOf is a type in the words of metrics and of /debug/syncz.
func kindOf(typeURL string) string {
	switch typeURL {
	case AuthorizationType:
		return "policies"
	case AddressType:
		return "addresses"
	case ClusterType:
		return "clusters"
	case EndpointType:
		return "endpoints"
	case ListenerType:
		return "listeners"
	case RouteType:
		return "routes"
	}
	return typeURL[strings.LastIndexByte(typeURL, '/')+1:]
}

// wildcard tells whether an empty subscription means everything. Endpoints and
// routes are asked for by name alone.
func wildcard(typeURL string) bool { return typeURL != EndpointType && typeURL != RouteType }
