package mesh

// ServiceKey names a service: a hostname in the namespace that defines it.
type ServiceKey struct {
	Namespace, Hostname string
}

// String is the resource name, "namespace/hostname".
func (k ServiceKey) String() string { return k.Namespace + "/" + k.Hostname }

// AppProtocol is what a service says its port speaks.
type AppProtocol uint8

// The protocols of workload.proto's AppProtocol, with its numbers.
const (
	AppUnknown AppProtocol = iota
	AppHTTP11
	AppHTTP2
	AppGRPC
	AppTCP
	AppTLS
)

// Port maps a service's port to the endpoint's.
type Port struct {
	Service uint16
	// Target is zero for a named port: the endpoint's own list has it.
	Target   uint16
	Protocol AppProtocol
}

// Scope is one property in which client and endpoint may agree.
type Scope uint8

// The scopes of workload.proto's LoadBalancing.Scope, with its numbers.
const (
	ScopeUnspecified Scope = iota
	ScopeRegion
	ScopeZone
	ScopeSubzone
	ScopeNode
	ScopeCluster
	ScopeNetwork
)

// BalanceMode is how scopes are used.
type BalanceMode uint8

// The modes of workload.proto's LoadBalancing.Mode, with its numbers.
const (
	BalanceUnspecified BalanceMode = iota // no preference
	BalanceStrict                         // endpoints that match all scopes, or none
	BalanceFailover                       // all scopes, then fewer from the end
	BalancePassthrough                    // no selection: the original address
)

// Visibility is who may resolve a service.
type Visibility uint8

// The values of workload.proto's Service.Visibility, with its numbers.
const (
	VisiblePublic Visibility = iota
	VisibleNamespace
)

// Balancing is how an endpoint of a service is chosen.
type Balancing struct {
	Scopes []Scope
	Mode   BalanceMode
	// AllowUnhealthy keeps endpoints that are not ready (publishNotReadyAddresses).
	AllowUnhealthy bool
}

// Service is a name, and optionally virtual addresses, in front of workloads.
// A published Service is never changed: replace it.
type Service struct {
	Key  ServiceKey
	Name string
	// VIPs is empty for a headless service.
	VIPs []NetworkAddr
	// Prefixes are ranges that the service stands for.
	Prefixes []NetworkPrefix
	Ports    []Port
	// SubjectAltNames may answer for the service beside the endpoint's own identity.
	SubjectAltNames []string
	Balancing       Balancing
	// IPFamilies is IPFamilies of workload.proto: 0 automatic, 1 IPv4, 2 IPv6, 3 dual.
	IPFamilies uint8

	Waypoint           *GatewayAddr // or nil
	WeightedWaypoints  []WeightedWaypoint
	IngressUseWaypoint bool

	// Canonical wins a lookup by hostname where the client's namespace has no match.
	Canonical  bool
	Visibility Visibility
}

// Port returns the mapping for a service port, or false if the service has none.
func (s *Service) Port(port uint16) (Port, bool) {
	for _, p := range s.Ports {
		if p.Service == port {
			return p, true
		}
	}
	return Port{}, false
}

// GatewayAddr is where a waypoint or a network's gateway is found: by service
// name or by address, exactly one of which is set.
type GatewayAddr struct {
	Service ServiceKey
	Addr    NetworkAddr
	Port    uint16 // the HBONE port
}

// WeightedWaypoint is one of several waypoints of a service.
type WeightedWaypoint struct {
	Waypoint GatewayAddr
	Weight   uint32
}
