package l4route

import (
	"fmt"
	"strconv"

	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// unknownService is a cluster that never exists, as istiod names it: a
// connection to it is closed.
const unknownService = "UnknownService"

// backend is where a share of a rule's connections goes.
type backend struct {
	service *model.Service // nil where there is none, which was reported
	port    uint32         // or zero: the service's only one, or the one called
	subset  string
	weight  uint32
}

func portText(p uint32) string { return strconv.FormatUint(uint64(p), 10) }

// clusters are the clusters of a rule; without any weight all is closed.
func (t *table) clusters(r *rule) (out []*tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight) {
	for _, one := range r.backends {
		if one.weight > 0 {
			out = append(out, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: t.cluster(r, one), Weight: one.weight})
		}
	}
	if len(out) == 0 {
		out = append(out, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: unknownService, Weight: 1})
	}
	return out
}

func (t *table) cluster(r *rule, one backend) string {
	if one.service == nil {
		return unknownService
	}
	port := one.port
	switch {
	case port != 0:
	case len(one.service.Ports) == 1:
		port = one.service.Ports[0].Number
	default:
		port = t.p.Number
	}
	switch {
	case one.service.Port(port) == nil:
		r.say.missing("BackendNotFound", fmt.Sprintf("service %s has no port %d", one.service.Hostname, port))
		return unknownService
	case one.subset != "" && t.d != nil && !t.d.HasSubset(one.service, one.subset):
		r.say.missing("BackendNotFound", fmt.Sprintf("no DestinationRule of %s defines the subset %q: connections to it are closed", one.service.Hostname, one.subset))
		return unknownService
	}
	t.backends[envoy.Backend{Service: one.service, Port: port, Kind: envoy.TCP}] = true
	return envoy.ClusterName(envoy.TCP, one.service.Hostname, port, one.subset)
}
