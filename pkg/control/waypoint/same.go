package waypoint

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// sameButRequests tells whether two models are the same but for routes of
// requests, of which clusters and listeners do not depend, except by what the
// routes lead to, and for pods, unless connections are routed by them. An object that
// was read again counts as another.
func sameButRequests(a, b *model.Model, pods bool) bool {
	if !source.Same(a.Services, b.Services) {
		return false // not the same translation: see translate.Translator
	}
	x, y := a.Objects, b.Objects
	if pods && (!source.Same(x.Pods, y.Pods) || !source.Same(x.WorkloadEntries, y.WorkloadEntries)) {
		return false
	}
	gone, come := source.Difference(x.VirtualServices, y.VirtualServices)
	return slices.Equal(x.DestinationRules, y.DestinationRules) && slices.Equal(x.TCPRoutes, y.TCPRoutes) && slices.Equal(x.TLSRoutes, y.TLSRoutes) &&
		slices.Equal(x.ReferenceGrants, y.ReferenceGrants) && slices.Equal(x.Telemetries, y.Telemetries) &&
		!slices.ContainsFunc(gone, streams) && !slices.ContainsFunc(come, streams)
}

// streams tells whether a VirtualService has rules for connections.
func streams(v *networkingv1.VirtualService) bool { return len(v.Spec.Tcp)+len(v.Spec.Tls) > 0 }
