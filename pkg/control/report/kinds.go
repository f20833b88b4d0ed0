package report

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// ClassController is the controller that the GatewayClass of waypoints names. It is
// Istio's, so that a class that is there from Istio goes on being served.
const ClassController = "istio.io/mesh-controller"

const (
	groupNetworking = "networking.istio.io"
	groupSecurity   = "security.istio.io"
	groupTelemetry  = "telemetry.istio.io"
	groupExtensions = "extensions.istio.io"
	groupGateway    = "gateway.networking.k8s.io"
)

// The parts of a status.
const (
	fieldConditions = "conditions"
	fieldAddresses  = "addresses"
	fieldListeners  = "listeners"
	fieldParents    = "parents"
)

// kind is how a kind's status is reached and what it can hold.
type kind struct {
	group, name, resource string
	// versions are tried in order: an older release of the CRDs may serve an older one alone.
	versions []string
	fields   []string
	// lazy kinds are not watched before something is said about one of them.
	lazy bool
	// urgent ones go before others: installers wait for them.
	urgent bool
}

var istioVersions = []string{"v1", "v1beta1", "v1alpha3"}

var kinds = []*kind{
	{group: groupGateway, name: "GatewayClass", resource: "gatewayclasses", versions: []string{"v1", "v1beta1"}, fields: []string{fieldConditions}, urgent: true},
	{group: groupGateway, name: "Gateway", resource: "gateways", versions: []string{"v1", "v1beta1"}, fields: []string{fieldConditions, fieldAddresses, fieldListeners}, urgent: true},
	{group: groupGateway, name: "HTTPRoute", resource: "httproutes", versions: []string{"v1", "v1beta1"}, fields: []string{fieldParents}},
	{group: groupGateway, name: "GRPCRoute", resource: "grpcroutes", versions: []string{"v1", "v1alpha2"}, fields: []string{fieldParents}},
	{group: groupGateway, name: "TCPRoute", resource: "tcproutes", versions: []string{"v1", "v1alpha2"}, fields: []string{fieldParents}},
	{group: groupGateway, name: "TLSRoute", resource: "tlsroutes", versions: []string{"v1", "v1alpha3", "v1alpha2"}, fields: []string{fieldParents}},
	{name: "Service", resource: "services", versions: []string{"v1"}, fields: []string{fieldConditions}},
	{group: groupNetworking, name: "ServiceEntry", resource: "serviceentries", versions: istioVersions, fields: []string{fieldConditions, fieldAddresses}},
	{group: groupNetworking, name: "WorkloadEntry", resource: "workloadentries", versions: istioVersions, fields: []string{fieldConditions}},
	{group: groupNetworking, name: "VirtualService", resource: "virtualservices", versions: istioVersions, fields: []string{fieldConditions}},
	{group: groupNetworking, name: "DestinationRule", resource: "destinationrules", versions: istioVersions, fields: []string{fieldConditions}},
	{group: groupSecurity, name: "AuthorizationPolicy", resource: "authorizationpolicies", versions: []string{"v1", "v1beta1"}, fields: []string{fieldConditions}},
	{group: groupSecurity, name: "PeerAuthentication", resource: "peerauthentications", versions: []string{"v1", "v1beta1"}, fields: []string{fieldConditions}},
	{group: groupTelemetry, name: "Telemetry", resource: "telemetries", versions: []string{"v1", "v1alpha1"}, fields: []string{fieldConditions}},

	{group: groupSecurity, name: "RequestAuthentication", resource: "requestauthentications", versions: []string{"v1", "v1beta1"}, fields: []string{fieldConditions}, lazy: true},
	{group: groupNetworking, name: "Gateway", resource: "gateways", versions: istioVersions, fields: []string{fieldConditions}, lazy: true},
	{group: groupNetworking, name: "Sidecar", resource: "sidecars", versions: istioVersions, fields: []string{fieldConditions}, lazy: true},
	{group: groupNetworking, name: "WorkloadGroup", resource: "workloadgroups", versions: istioVersions, fields: []string{fieldConditions}, lazy: true},
	{group: groupNetworking, name: "EnvoyFilter", resource: "envoyfilters", versions: []string{"v1alpha3"}, fields: []string{fieldConditions}, lazy: true},
	{group: groupNetworking, name: "ProxyConfig", resource: "proxyconfigs", versions: []string{"v1beta1"}, fields: []string{fieldConditions}, lazy: true},
	{group: groupExtensions, name: "WasmPlugin", resource: "wasmplugins", versions: []string{"v1alpha1"}, fields: []string{fieldConditions}, lazy: true},
}

// route tells whether all that is said of the kind's objects is said by parent.
func (k *kind) route() bool { return slices.Contains(k.fields, fieldParents) }

func (k *kind) groupKind() schema.GroupKind { return schema.GroupKind{Group: k.group, Kind: k.name} }

// ours are the types of conditions that nobody else writes on objects of the kind.
// Those of Gateways and their classes are of whoever serves the class.
func (k *kind) ours(condition string) bool {
	if strings.HasPrefix(condition, "fairlead.dev/") {
		return true
	}
	if k.group == groupGateway {
		switch condition {
		case status.RouteAccepted, status.Programmed, status.RouteResolvedRefs, status.RoutePartiallyInvalid, status.ResolvedWaypoints:
			return true
		}
		return false
	}
	switch condition {
	case status.ZtunnelAccepted, status.WaypointAccepted, status.WaypointBound, status.WaypointMissing, status.VisibilityApplied:
		return true
	}
	return false
}

// groupKindOf is an object's.
func groupKindOf(o status.Object) schema.GroupKind {
	group, _, found := strings.Cut(o.APIVersion, "/")
	if !found {
		group = ""
	}
	return schema.GroupKind{Group: group, Kind: o.Kind}
}
