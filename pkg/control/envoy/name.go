package envoy

import (
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// Kind is how a cluster's or chain's bytes are carried.
type Kind string

// The kinds.
const (
	HTTP Kind = "http"
	TCP  Kind = "tcp"
)

// ClusterName is the name of a port's cluster, as istiod names it:
// "inbound-vip|9080|http|reviews.default.svc.cluster.local", or with a subset
// "inbound-vip|9080|http/v1|reviews...". Without subset it is also the name of the
// port's filter chain and of its route configuration.
func ClusterName(kind Kind, host string, port uint32, subset string) string {
	if subset != "" {
		subset = "/" + subset
	}
	return "inbound-vip|" + strconv.FormatUint(uint64(port), 10) + "|" + string(kind) + subset + "|" + host
}

// Kinds are the clusters that a port has: both where the protocol is not declared.
func Kinds(p model.Protocol) []Kind {
	switch {
	case p.IsHTTP():
		return []Kind{HTTP}
	case p == model.Unsupported:
		return []Kind{TCP, HTTP}
	}
	return []Kind{TCP}
}
