package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Errors of a choice, for the caller to tell apart.
var (
	// ErrNoEndpoint: the service has none that is healthy, reachable and in scope.
	ErrNoEndpoint = errors.New("no healthy upstream")
	// ErrNoPort: the service has no such port.
	ErrNoPort = errors.New("the service has no such port")
	// ErrPassthrough: the service asks for no choice; the original address stands.
	ErrPassthrough = errors.New("the service passes its addresses through")
)

// Endpoint is what was chosen: a workload and where it listens.
type Endpoint struct {
	Workload *mesh.Workload
	// Addr has the endpoint's own port. Its address is invalid where the
	// workload has none and is reached by its hostname or gateway.
	Addr netip.AddrPort
}

// Endpoint chooses an endpoint of svc for a connection of client to port. Of the
// endpoints that are healthy, have the port and an address of the family wanted
// (an address of the client's own family is preferred), those that share most of
// the service's scopes with the client are kept, and one is drawn by weight.
func (s *Snapshot) Endpoint(svc *mesh.Service, port uint16, client *mesh.Workload, wantIPv6 bool) (Endpoint, error) {
	if svc.Balancing.Mode == mesh.BalancePassthrough {
		return Endpoint{}, ErrPassthrough
	}
	servicePort, ok := svc.Port(port)
	if !ok {
		return Endpoint{}, fmt.Errorf("%w: %s:%d", ErrNoPort, svc.Key.Hostname, port)
	}
	var pick Endpoint
	var total uint64
	bestRank := -1
	for _, w := range s.Endpoints(svc.Key) {
		if !w.Healthy && !svc.Balancing.AllowUnhealthy {
			continue
		}
		rank, ok := rankOf(&svc.Balancing, client, w)
		if !ok || rank < bestRank {
			continue
		}
		target, ok := targetPort(w, svc.Key, servicePort)
		if !ok {
			continue
		}
		addr, ok := addressFor(w, wantIPv6, svc.IPFamilies)
		if !ok {
			continue
		}
		if rank > bestRank {
			bestRank, total = rank, 0
		}
		// Weighted reservoir sampling: one pass, no list.
		weight := uint64(max(w.Capacity, 1))
		total += weight
		if rand.Uint64N(total) < weight { //nolint:gosec // balances load, guards nothing
			pick = Endpoint{w, netip.AddrPortFrom(addr, target)}
		}
	}
	if pick.Workload == nil {
		return Endpoint{}, fmt.Errorf("%w for %s:%d", ErrNoEndpoint, svc.Key.Hostname, port)
	}
	return pick, nil
}

// targetPort is the port that w listens on: its own mapping, which has resolved
// named ports, else the service's.
func targetPort(w *mesh.Workload, key mesh.ServiceKey, p mesh.Port) (uint16, bool) {
	for _, own := range w.Services[key] {
		if own.Service == p.Service && own.Target != 0 {
			return own.Target, true
		}
	}
	return p.Target, p.Target != 0
}

// addressFor is the workload's address of the wanted family, or another one that
// the service allows. A workload without addresses is reached otherwise.
func addressFor(w *mesh.Workload, wantIPv6 bool, families uint8) (netip.Addr, bool) {
	if len(w.Addrs) == 0 {
		return netip.Addr{}, w.Hostname != "" || w.NetworkGateway != nil
	}
	var other netip.Addr
	for _, a := range w.Addrs {
		if families == 1 && a.Is6() || families == 2 && a.Is4() {
			continue
		}
		if a.Is6() == wantIPv6 {
			return a, true
		}
		other = a
	}
	return other, other.IsValid()
}

// rankOf is how well an endpoint suits the client: the number of leading scopes
// in which they agree. Endpoints of lower rank are used only without higher ones.
func rankOf(b *mesh.Balancing, client, w *mesh.Workload) (rank int, ok bool) {
	if b.Mode == mesh.BalanceUnspecified || len(b.Scopes) == 0 {
		return 0, true
	}
	scopes := b.Scopes
	if b.Mode == mesh.BalanceFailover && scopes[0] == mesh.ScopeNetwork {
		// The own network is preferred, not required of the scopes after it:
		// endpoints elsewhere are ranked by those too, below all local ones.
		rank = matching(scopes[1:], client, w)
		if agrees(mesh.ScopeNetwork, client, w) {
			rank += len(scopes)
		}
		return rank, true
	}
	rank = matching(scopes, client, w)
	if b.Mode == mesh.BalanceStrict && rank < len(scopes) {
		return 0, false
	}
	return rank, true
}

func matching(scopes []mesh.Scope, client, w *mesh.Workload) (n int) {
	for _, scope := range scopes {
		if !agrees(scope, client, w) {
			return n
		}
		n++
	}
	return n
}

func agrees(scope mesh.Scope, client, w *mesh.Workload) bool {
	if client == nil {
		return false
	}
	switch scope {
	case mesh.ScopeRegion:
		return client.Locality.Region == w.Locality.Region
	case mesh.ScopeZone:
		return client.Locality.Zone == w.Locality.Zone
	case mesh.ScopeSubzone:
		return client.Locality.Subzone == w.Locality.Subzone
	case mesh.ScopeNode:
		return client.Node == w.Node
	case mesh.ScopeCluster:
		return client.Cluster == w.Cluster
	case mesh.ScopeNetwork:
		return client.Network == w.Network
	case mesh.ScopeUnspecified:
		return true
	}
	return false
}
