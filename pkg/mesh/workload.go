package mesh

import "net/netip"

// WorkloadID is a workload's uid as the control plane gives it. It is opaque,
// unique over all clusters, and also the workload's resource name.
type WorkloadID string

// ExtensionTCPOnly is the extension of a workload by which our control plane says
// that it is TCP alone that may reach it and leave it. Others ignore it.
const ExtensionTCPOnly = "fairlead.dev/tcp-only"

// ExtensionWaypointAuthorizes is the extension of a workload by which our control plane
// says that its waypoints decide by its policies, on those who call them: what comes
// from them is not decided on again. Others ignore it.
const ExtensionWaypointAuthorizes = "fairlead.dev/waypoint-authorizes"

// Tunnel is how a workload takes traffic from the mesh.
type Tunnel uint8

// The tunnels of workload.proto's TunnelProtocol.
const (
	TunnelNone  Tunnel = iota // plain TCP
	TunnelHBONE               // HTTP/2 CONNECT over mTLS on port 15008
)

// Locality is where a workload runs.
type Locality struct {
	Region, Zone, Subzone string
}

// Workload is one running instance, or a name that resolves to one.
// A published Workload is never changed: replace it.
type Workload struct {
	UID            WorkloadID
	Name           string
	Namespace      string
	TrustDomain    string
	ServiceAccount string

	// Addrs are in Network; none for a workload with a Hostname.
	Addrs    []netip.Addr
	Hostname string
	Network  string
	Cluster  string
	Node     string
	Locality Locality
	// HostNetwork workloads share their node's address and are never looked up by it.
	HostNetwork bool

	// TCPOnly: packets of other protocols, to it and from it, are dropped. See
	// ExtensionTCPOnly.
	TCPOnly bool

	// WaypointAuthorizes: see ExtensionWaypointAuthorizes.
	WaypointAuthorizes bool

	Tunnel         Tunnel
	NativeTunnel   bool
	AppTunnel      *AppTunnel
	Waypoint       *GatewayAddr // or nil
	NetworkGateway *GatewayAddr // or nil

	WorkloadName      string
	WorkloadType      string // deployment, cronjob, pod or job
	CanonicalName     string
	CanonicalRevision string

	Healthy bool
	// Capacity is the relative weight in balancing, at least 1.
	Capacity uint32

	// Policies are the keys ("namespace/name") of the selector policies that apply.
	Policies []string
	// Services are the services this workload is an endpoint of, with its own ports.
	Services map[ServiceKey][]Port
}

// Identity is the identity that the workload's certificate must carry.
func (w *Workload) Identity() Identity {
	return Identity{TrustDomain: w.TrustDomain, Namespace: w.Namespace, ServiceAccount: w.ServiceAccount}
}

// AppTunnel is a further tunnel that the application itself terminates.
type AppTunnel struct {
	Proxy bool // PROXY protocol v2 before the bytes
	Port  uint16
}
