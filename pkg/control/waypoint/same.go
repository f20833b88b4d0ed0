package waypoint

import (
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// sameButRequests tells whether two models are the same but for routes of
// requests, of which clusters and listeners do not depend, except by what the
// routes lead to. An object that was read again counts as another.
func sameButRequests(a, b *model.Model) bool {
	if len(a.Services) != len(b.Services) || len(a.Services) > 0 && &a.Services[0] != &b.Services[0] {
		return false // not the same translation: see translate.Translator
	}
	x, y := a.Objects, b.Objects
	return slices.Equal(x.DestinationRules, y.DestinationRules) && slices.Equal(x.TCPRoutes, y.TCPRoutes) && slices.Equal(x.TLSRoutes, y.TLSRoutes) &&
		slices.Equal(x.ReferenceGrants, y.ReferenceGrants) && slices.Equal(x.Telemetries, y.Telemetries) &&
		sameStreams(x.VirtualServices, y.VirtualServices)
}

// sameStreams tells whether two lists have the same VirtualServices with rules for
// connections.
func sameStreams(a, b []*networkingv1.VirtualService) bool {
	return slices.Equal(withStreams(a), withStreams(b))
}

func withStreams(all []*networkingv1.VirtualService) (out []*networkingv1.VirtualService) {
	for _, v := range all {
		if len(v.Spec.Tcp)+len(v.Spec.Tls) > 0 {
			out = append(out, v)
		}
	}
	return out
}
