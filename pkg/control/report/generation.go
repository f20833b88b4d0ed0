package report

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Generations tells the generation that an object has in a state; 0: it is not in it.
func Generations(o *source.Objects) func(status.Object) int64 {
	return func(of status.Object) int64 {
		switch of.Kind {
		case "Service":
			return generation(o.Services, of)
		case "ServiceEntry":
			return generation(o.ServiceEntries, of)
		case "WorkloadEntry":
			return generation(o.WorkloadEntries, of)
		case "VirtualService":
			return generation(o.VirtualServices, of)
		case "DestinationRule":
			return generation(o.DestinationRules, of)
		case "AuthorizationPolicy":
			return generation(o.AuthorizationPolicies, of)
		case "PeerAuthentication":
			return generation(o.PeerAuthentications, of)
		case "Telemetry":
			return generation(o.Telemetries, of)
		case "HTTPRoute":
			return generation(o.HTTPRoutes, of)
		case "GRPCRoute":
			return generation(o.GRPCRoutes, of)
		case "TCPRoute":
			return generation(o.TCPRoutes, of)
		case "TLSRoute":
			return generation(o.TLSRoutes, of)
		case "Gateway":
			if groupKindOf(of).Group == groupGateway {
				return generation(o.Gateways, of)
			}
		}
		return 0
	}
}

func generation[T metav1.Object](all []T, of status.Object) int64 {
	i, found := slices.BinarySearchFunc(all, of, func(o T, of status.Object) int {
		return cmp.Or(cmp.Compare(o.GetNamespace(), of.Namespace), cmp.Compare(o.GetName(), of.Name))
	})
	if !found {
		return 0
	}
	return all[i].GetGeneration()
}
