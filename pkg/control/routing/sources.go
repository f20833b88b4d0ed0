package routing

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// sources are the objects that the routes of a service's ports are made of, in the
// order of their use. Where alone is true nothing else that may change goes into
// them but services, DestinationRules, ReferenceGrants and the mesh's settings: if
// these are the same in two states, so are the routes.
func (b *Builder) sources(s *model.Service) (objects []metav1.Object, alone bool) {
	alone = true
	for _, c := range b.virtuals[s] {
		objects, alone = append(objects, c.virtual.object), alone && c.virtual.pure
	}
	for _, a := range b.attached[s] {
		objects = append(objects, a.route.object)
	}
	return objects, alone
}
