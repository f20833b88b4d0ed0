package admin

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Dump is /config_dump: the keys are those of Istio's node proxy.
type Dump struct {
	Workloads     []workload          `json:"workloads"`
	Services      []service           `json:"services"`
	Policies      []policy            `json:"policies"`
	Certificates  []Certificate       `json:"certificates"`
	WorkloadState map[string]PodState `json:"workloadState"`
	StaticConfig  struct{}            `json:"staticConfig"`
	Config        any                 `json:"config"`
	Version       any                 `json:"version"`
}

// NewDump renders the mesh's nouns, sorted. The caller adds the other fields.
func NewDump(workloads []*mesh.Workload, services []*mesh.Service, policies []*mesh.Policy) *Dump {
	d := &Dump{WorkloadState: map[string]PodState{}, Certificates: []Certificate{}}
	endpoints := map[mesh.ServiceKey]map[string]endpoint{}
	for _, w := range slices.SortedFunc(slices.Values(workloads), func(a, b *mesh.Workload) int { return cmp.Compare(a.UID, b.UID) }) {
		d.Workloads = append(d.Workloads, newWorkload(w))
		for key, ports := range w.Services {
			if endpoints[key] == nil {
				endpoints[key] = map[string]endpoint{}
			}
			endpoints[key][string(w.UID)] = newEndpoint(w, key, ports)
		}
	}
	for _, s := range slices.SortedFunc(slices.Values(services), func(a, b *mesh.Service) int { return cmp.Compare(a.Key.String(), b.Key.String()) }) {
		d.Services = append(d.Services, newService(s, endpoints[s.Key]))
	}
	for _, p := range slices.SortedFunc(slices.Values(policies), func(a, b *mesh.Policy) int { return cmp.Compare(a.Key(), b.Key()) }) {
		d.Policies = append(d.Policies, newPolicy(p))
	}
	return d
}

// Certificate is one identity's certificate and what it chains to.
type Certificate struct {
	Identity string `json:"identity"`
	// State is Available, Initializing or Unavailable, with the reason.
	State     string `json:"state"`
	CertChain []Cert `json:"certChain"`
	RootCerts []Cert `json:"rootCerts"`
	// NextRenewal is ours: when the next certificate will be asked for.
	NextRenewal string `json:"nextRenewal,omitempty"`
}

// Cert is one certificate; times are RFC 3339.
type Cert struct {
	PEM            string `json:"pem"`
	SerialNumber   string `json:"serialNumber"`
	ValidFrom      string `json:"validFrom"`
	ExpirationTime string `json:"expirationTime"`
}

// Timestamp renders t as the dump does, in UTC; the zero time is empty.
func Timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// PodState is one enrolled pod and its live connections.
type PodState struct {
	State       string      `json:"state"` // Pending or Up
	Connections Connections `json:"connections"`
	Info        PodInfo     `json:"info"`
}

// Connections are a pod's live connections by direction.
type Connections struct {
	Inbound  []Connection `json:"inbound"`
	Outbound []Connection `json:"outbound"`
}

// Connection is one live connection.
type Connection struct {
	Source              string `json:"src"`
	OriginalDestination string `json:"originalDst"`
	ActualDestination   string `json:"actualDst"`
	Protocol            string `json:"protocol"` // HBONE or TCP
}

// PodInfo says whose namespace it is.
type PodInfo struct {
	Name           string `json:"name"`
	Namespace      string `json:"namespace"`
	TrustDomain    string `json:"trustDomain"`
	ServiceAccount string `json:"serviceAccount"`
}

type workload struct {
	WorkloadIPs           []string   `json:"workloadIps"`
	Waypoint              *gateway   `json:"waypoint,omitempty"`
	NetworkGateway        *gateway   `json:"networkGateway,omitempty"`
	Protocol              string     `json:"protocol"`
	NetworkMode           string     `json:"networkMode"`
	UID                   string     `json:"uid"`
	Name                  string     `json:"name"`
	Namespace             string     `json:"namespace"`
	TrustDomain           string     `json:"trustDomain"`
	ServiceAccount        string     `json:"serviceAccount"`
	Network               string     `json:"network"`
	WorkloadName          string     `json:"workloadName"`
	WorkloadType          string     `json:"workloadType"`
	CanonicalName         string     `json:"canonicalName"`
	CanonicalRevision     string     `json:"canonicalRevision"`
	Hostname              string     `json:"hostname"`
	Node                  string     `json:"node"`
	NativeTunnel          bool       `json:"nativeTunnel"`
	ApplicationTunnel     *appTunnel `json:"applicationTunnel,omitempty"`
	AuthorizationPolicies []string   `json:"authorizationPolicies,omitempty"`
	Status                string     `json:"status"`
	ClusterID             string     `json:"clusterId"`
	Locality              locality   `json:"locality"`
	Services              []string   `json:"services,omitempty"`
	Capacity              uint32     `json:"capacity"`
}

type gateway struct {
	Destination   string `json:"destination"`
	HBONEMTLSPort uint16 `json:"hboneMtlsPort"`
}

type appTunnel struct {
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port,omitempty"`
}

type locality struct {
	Region  string `json:"region,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Subzone string `json:"subzone,omitempty"`
}

func newWorkload(w *mesh.Workload) workload {
	out := workload{
		WorkloadIPs: []string{}, Waypoint: newGateway(w.Waypoint), NetworkGateway: newGateway(w.NetworkGateway),
		Protocol: "TCP", NetworkMode: "Standard", UID: string(w.UID), Name: w.Name, Namespace: w.Namespace,
		TrustDomain: w.TrustDomain, ServiceAccount: w.ServiceAccount, Network: w.Network, WorkloadName: w.WorkloadName,
		WorkloadType: w.WorkloadType, CanonicalName: w.CanonicalName, CanonicalRevision: w.CanonicalRevision,
		Hostname: w.Hostname, Node: w.Node, NativeTunnel: w.NativeTunnel, AuthorizationPolicies: w.Policies,
		Status: "Healthy", ClusterID: w.Cluster, Locality: locality(w.Locality), Capacity: w.Capacity,
	}
	for _, a := range w.Addrs {
		out.WorkloadIPs = append(out.WorkloadIPs, a.String())
	}
	if w.Tunnel == mesh.TunnelHBONE {
		out.Protocol = "HBONE"
	}
	if w.HostNetwork {
		out.NetworkMode = "HostNetwork"
	}
	if !w.Healthy {
		out.Status = "Unhealthy"
	}
	if t := w.AppTunnel; t != nil {
		out.ApplicationTunnel = &appTunnel{Protocol: "NONE", Port: t.Port}
		if t.Proxy {
			out.ApplicationTunnel.Protocol = "PROXY"
		}
	}
	for key := range w.Services {
		out.Services = append(out.Services, key.String())
	}
	slices.Sort(out.Services)
	return out
}

func newGateway(g *mesh.GatewayAddr) *gateway {
	if g == nil {
		return nil
	}
	out := &gateway{Destination: g.Service.String(), HBONEMTLSPort: g.Port}
	if g.Service.Hostname == "" {
		out.Destination = g.Addr.String()
	}
	return out
}

type service struct {
	Name            string              `json:"name"`
	Namespace       string              `json:"namespace"`
	Hostname        string              `json:"hostname"`
	VIPs            []string            `json:"vips"`
	CIDRVIPs        []string            `json:"cidrVips,omitempty"`
	Ports           map[string]uint16   `json:"ports"`
	Endpoints       map[string]endpoint `json:"endpoints"`
	SubjectAltNames []string            `json:"subjectAltNames,omitempty"`
	Waypoint        *gateway            `json:"waypoint,omitempty"`
	Weighted        []weighted          `json:"weightedWaypoints,omitempty"`
	LoadBalancer    *loadBalancer       `json:"loadBalancer,omitempty"`
	IPFamilies      string              `json:"ipFamilies,omitempty"`
	Canonical       bool                `json:"canonical"`
	Visibility      string              `json:"visibility"`
}

type endpoint struct {
	WorkloadUID string            `json:"workloadUid"`
	Service     string            `json:"service"`
	Port        map[uint16]uint16 `json:"port"`
}

type weighted struct {
	Destination *gateway `json:"destination"`
	Weight      uint32   `json:"weight"`
}

type loadBalancer struct {
	Mode               string   `json:"mode"`
	RoutingPreferences []string `json:"routingPreferences"`
	HealthPolicy       string   `json:"healthPolicy"`
}

var (
	balanceModes = []string{"Standard", "Strict", "Failover", "Passthrough"}
	scopeNames   = []string{"", "Region", "Zone", "Subzone", "Node", "Cluster", "Network"}
	ipFamilies   = []string{"", "IPv4", "IPv6", "Dual"}
)

// name is names[i], or the number where the wire has grown past us.
func name[T ~uint8](names []string, i T) string {
	if int(i) < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(i))
}

func newEndpoint(w *mesh.Workload, key mesh.ServiceKey, ports []mesh.Port) endpoint {
	e := endpoint{WorkloadUID: string(w.UID), Service: key.String(), Port: map[uint16]uint16{}}
	for _, p := range ports {
		e.Port[p.Service] = p.Target
	}
	return e
}

func newService(s *mesh.Service, endpoints map[string]endpoint) service {
	out := service{
		Name: s.Name, Namespace: s.Key.Namespace, Hostname: s.Key.Hostname, VIPs: []string{}, Ports: map[string]uint16{},
		Endpoints: endpoints, SubjectAltNames: s.SubjectAltNames, Waypoint: newGateway(s.Waypoint),
		IPFamilies: name(ipFamilies, s.IPFamilies), Canonical: s.Canonical, Visibility: "Public",
	}
	if out.Endpoints == nil {
		out.Endpoints = map[string]endpoint{}
	}
	for _, v := range s.VIPs {
		out.VIPs = append(out.VIPs, v.String())
	}
	for _, p := range s.Prefixes {
		out.CIDRVIPs = append(out.CIDRVIPs, p.Network+"/"+p.Prefix.String())
	}
	for _, p := range s.Ports {
		out.Ports[strconv.Itoa(int(p.Service))] = p.Target
	}
	for i := range s.WeightedWaypoints {
		out.Weighted = append(out.Weighted, weighted{newGateway(&s.WeightedWaypoints[i].Waypoint), s.WeightedWaypoints[i].Weight})
	}
	if s.Visibility == mesh.VisibleNamespace {
		out.Visibility = "Namespace"
	}
	if b := s.Balancing; b.Mode != mesh.BalanceUnspecified || b.AllowUnhealthy {
		lb := &loadBalancer{Mode: name(balanceModes, b.Mode), RoutingPreferences: []string{}, HealthPolicy: "OnlyHealthy"}
		for _, scope := range b.Scopes {
			lb.RoutingPreferences = append(lb.RoutingPreferences, name(scopeNames, scope))
		}
		if b.AllowUnhealthy {
			lb.HealthPolicy = "AllowAll"
		}
		out.LoadBalancer = lb
	}
	return out
}

type policy struct {
	Name      string      `json:"name"`
	Namespace string      `json:"namespace"`
	Scope     string      `json:"scope"`
	Action    string      `json:"action"`
	Rules     [][][]match `json:"rules"`
	DryRun    bool        `json:"dryRun,omitempty"`
}

type match struct {
	Namespaces          []stringMatch  `json:"namespaces,omitempty"`
	NotNamespaces       []stringMatch  `json:"notNamespaces,omitempty"`
	ServiceAccounts     []accountMatch `json:"serviceAccounts,omitempty"`
	NotServiceAccounts  []accountMatch `json:"notServiceAccounts,omitempty"`
	Principals          []stringMatch  `json:"principals,omitempty"`
	NotPrincipals       []stringMatch  `json:"notPrincipals,omitempty"`
	SourceIPs           []string       `json:"sourceIps,omitempty"`
	NotSourceIPs        []string       `json:"notSourceIps,omitempty"`
	DestinationIPs      []string       `json:"destinationIps,omitempty"`
	NotDestinationIPs   []string       `json:"notDestinationIps,omitempty"`
	DestinationPorts    []uint16       `json:"destinationPorts,omitempty"`
	NotDestinationPorts []uint16       `json:"notDestinationPorts,omitempty"`
}

// stringMatch has one key: Exact, Prefix, Suffix or Presence.
type stringMatch map[string]any

type accountMatch struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

func newPolicy(p *mesh.Policy) policy {
	out := policy{
		Name: p.Name, Namespace: p.Namespace, DryRun: p.DryRun, Rules: [][][]match{},
		Scope:  name([]string{"Global", "Namespace", "WorkloadSelector"}, p.Scope),
		Action: name([]string{"Allow", "Deny"}, p.Action),
	}
	for _, rule := range p.Rules {
		clauses := [][]match{}
		for _, clause := range rule.Clauses {
			matches := []match{}
			for _, m := range clause.Matches {
				matches = append(matches, newMatch(m))
			}
			clauses = append(clauses, matches)
		}
		out.Rules = append(out.Rules, clauses)
	}
	return out
}

func newMatch(m mesh.PolicyMatch) match {
	return match{
		Namespaces: strs(m.Namespaces), NotNamespaces: strs(m.NotNamespaces),
		ServiceAccounts: accounts(m.ServiceAccounts), NotServiceAccounts: accounts(m.NotServiceAccounts),
		Principals: strs(m.Principals), NotPrincipals: strs(m.NotPrincipals),
		SourceIPs: texts(m.SourceIPs), NotSourceIPs: texts(m.NotSourceIPs),
		DestinationIPs: texts(m.DestinationIPs), NotDestinationIPs: texts(m.NotDestinationIPs),
		DestinationPorts: m.DestinationPorts, NotDestinationPorts: m.NotDestinationPorts,
	}
}

func strs(matches []mesh.StringMatch) (out []stringMatch) {
	for _, m := range matches {
		key := name([]string{"Exact", "Prefix", "Suffix", "Presence"}, m.Kind)
		if m.Kind == mesh.MatchPresence {
			out = append(out, stringMatch{key: []string{}})
			continue
		}
		out = append(out, stringMatch{key: m.Value})
	}
	return out
}

func accounts(matches []mesh.ServiceAccountMatch) (out []accountMatch) {
	for _, m := range matches {
		out = append(out, accountMatch(m))
	}
	return out
}

func texts[T fmt.Stringer](values []T) (out []string) {
	for _, v := range values {
		out = append(out, v.String())
	}
	return out
}
