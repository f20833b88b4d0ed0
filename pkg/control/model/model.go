// Package model is the mesh as the L7 translation sees it: services with their
// ports and endpoints, and the waypoints they are bound to. Package translate
// makes it from objects; packages under control read it. It holds no logic but
// look-ups, and nothing in it is changed once it is made.
package model

import (
	"net/netip"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Model is one state of the mesh.
type Model struct {
	Objects *source.Objects
	// Services are sorted by namespace and host name.
	Services []*Service
	// Endpoints are, by the service's index, those of all ports of each, sorted by
	// Name: apart, so that a service is the same where its pods are others.
	Endpoints [][]*Endpoint
	// Waypoints are sorted by namespace and name.
	Waypoints []*Waypoint
	// ClusterDomain is the DNS suffix of services, "cluster.local" by default.
	ClusterDomain string
	// TrustDomain is the mesh's own; TrustDomainAliases count as it.
	TrustDomain        string
	TrustDomainAliases []string
	// ClusterID and Network name the cluster.
	ClusterID, Network string
}

// detectionTimeout is that of a mesh that sets none.
const detectionTimeout = 5 * time.Second

// DetectionTimeout is how long a connection to a port whose protocol is not declared
// may say nothing before it is taken for no HTTP.
func (m *Model) DetectionTimeout() time.Duration {
	if d := m.Objects.Mesh.GetProtocolDetectionTimeout().AsDuration(); d > 0 {
		return d
	}
	return detectionTimeout
}

// Key names a namespaced object or a service by its host name.
type Key struct{ Namespace, Name string }

// Protocol is how a port's bytes are read.
type Protocol string

// The protocols, by Istio's names for ports. Unsupported is one that is not
// declared: it is detected from the first bytes.
const (
	HTTP        Protocol = "HTTP"
	HTTP2       Protocol = "HTTP2"
	GRPC        Protocol = "GRPC"
	TCP         Protocol = "TCP"
	TLS         Protocol = "TLS"
	HTTPS       Protocol = "HTTPS"
	Unsupported Protocol = "UnsupportedProtocol"
)

// IsHTTP tells whether requests can be told apart.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

// Service is a Kubernetes Service or one host of a ServiceEntry.
type Service struct {
	Namespace, Name, Hostname string
	// Addresses are its virtual addresses; none for a headless service.
	Addresses []netip.Prefix
	Ports     []Port
	// Index is its place among the model's services.
	Index int
	// Waypoint is the one that the service is bound to and that is ready, or nil.
	Waypoint *Waypoint
	// SubjectAltNames may answer beside the endpoints' identities.
	SubjectAltNames []string
	// MeshExternal: its endpoints are outside the mesh.
	MeshExternal bool
	// Resolution is how its endpoints are found; STATIC for Kubernetes services.
	Resolution networkingapi.ServiceEntry_Resolution
	// Kube or Entry is the object it comes from; the other is nil.
	Kube  *corev1.Service
	Entry *networkingv1.ServiceEntry
}

// Port is one port of a service that the mesh carries.
type Port struct {
	Name     string
	Number   uint32
	Protocol Protocol
}

// Headless tells that it has no addresses of its own, so nothing comes to it by them.
func (s *Service) Headless() bool { return len(s.Addresses) == 0 }

// Port is the service's port of that number, or nil.
func (s *Service) Port(number uint32) *Port {
	for i := range s.Ports {
		if s.Ports[i].Number == number {
			return &s.Ports[i]
		}
	}
	return nil
}

// Endpoint is where a service's connections may go.
type Endpoint struct {
	// Name is the workload's uid on the wire.
	Name string
	// Address is an IP address, or else Hostname is to be resolved by name.
	Address  netip.Addr
	Hostname string
	// MoreAddresses are its others, of the second family.
	MoreAddresses []netip.Addr
	// Ports maps the service's port numbers to the endpoint's.
	Ports map[uint32]uint32
	// Labels select it for subsets.
	Labels map[string]string
	// Tunnel: it takes HBONE on port 15008.
	Tunnel bool
	// Ready: it may be used.
	Ready bool
	// Weight is relative to the others'; zero counts as one.
	Weight uint32

	Namespace, ServiceAccount           string
	Workload, WorkloadType              string // the owner's name and kind
	CanonicalService, CanonicalRevision string
	Node, Region, Zone, SubZone         string
	Cluster, Network                    string
}

// Waypoint is a Gateway of a waypoint class.
type Waypoint struct {
	Key     Key
	Gateway *gatewayv1.Gateway
	// Services are those bound to it, sorted as the model's.
	Services []*Service
	// Workloads are pods and workload entries bound to it for their own
	// addresses, sorted by Name.
	Workloads []*Endpoint
	// ServiceAccount is what its pods run as.
	ServiceAccount string
}

// EndpointsOf are the endpoints of a service of the model.
func (m *Model) EndpointsOf(s *Service) []*Endpoint {
	if s.Index >= len(m.Endpoints) {
		return nil
	}
	return m.Endpoints[s.Index]
}

// ServiceByHost finds a service by its fully qualified host name as seen from a
// namespace: that namespace's own first, then Kubernetes' services, then the
// first by namespace. It is nil where there is none.
func (m *Model) ServiceByHost(host, from string) *Service {
	var best *Service
	for _, s := range m.Services {
		if s.Hostname != host {
			continue
		}
		switch {
		case s.Namespace == from:
			return s
		case best == nil, best.Kube == nil && s.Kube != nil:
			best = s
		}
	}
	return best
}
