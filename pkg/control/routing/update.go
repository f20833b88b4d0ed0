package routing

import (
	"slices"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// maxChanges bounds how many changes of routes are known; who is further behind
// makes all anew. maxPatterns bounds those that were looked at.
const (
	maxChanges  = 4096
	maxPatterns = 4096
)

// change is a service whose routes changed with a version.
type change struct {
	version uint64
	service *model.Service
}

// Version counts the states that the builder has had.
func (b *Builder) Version() uint64 { return b.version }

// Changed are the services whose routes may be others than at a version; ok is false
// where that is not known, and it may be all. It holds while services,
// DestinationRules, ReferenceGrants and the mesh's settings are the same.
func (b *Builder) Changed(since uint64) (services []*model.Service, ok bool) {
	if since < b.oldest {
		return nil, false
	}
	for _, c := range slices.Backward(b.changes) {
		if c.version <= since {
			break
		}
		if !slices.Contains(services, c.service) {
			services = append(services, c.service)
		}
	}
	return services, true
}

func (b *Builder) note(s *model.Service) {
	b.changes = append(b.changes, change{b.version, s})
	for i := range s.Ports {
		delete(b.notes, portKey{s, s.Ports[i].Number})
	}
}

// update makes the builder that of another state, if only routes that are made of
// themselves alone have changed. It costs what these cost.
func (b *Builder) update(m *model.Model) bool {
	old, now := b.model.Objects, m.Objects
	if !source.Same(b.model.Services, m.Services) || old.Mesh != now.Mesh || b.model.ClusterDomain != m.ClusterDomain || !source.Same(old.ReferenceGrants, now.ReferenceGrants) {
		return false
	}
	if b.impure > 0 && (!source.Same(old.Pods, now.Pods) || !source.Same(old.WorkloadEntries, now.WorkloadEntries)) {
		return false
	}
	gone, come := source.Difference(old.VirtualServices, now.VirtualServices)
	if slices.ContainsFunc(gone, b.delegating) || slices.ContainsFunc(come, b.delegating) {
		return false
	}
	b.model, b.version = m, b.version+1
	if len(b.patterns) > maxPatterns {
		clear(b.patterns)
	}
	for _, v := range gone {
		b.dropVirtual(v)
	}
	for _, v := range come {
		for _, s := range b.addVirtual(v, nil).services {
			slices.SortFunc(b.virtuals[s], candidate.compare)
			b.note(s)
		}
	}
	updateRoutes(b, old.HTTPRoutes, now.HTTPRoutes, b.httpRoute)
	updateRoutes(b, old.GRPCRoutes, now.GRPCRoutes, b.grpcRoute)
	if extra := len(b.changes) - maxChanges; extra > 0 {
		b.oldest = b.changes[extra-1].version
		b.changes = slices.Clone(b.changes[extra:])
	}
	return true
}

// delegating tells whether a VirtualService is made of more than itself, or others
// are made of it.
func (b *Builder) delegating(v *networkingv1.VirtualService) bool {
	if len(v.Spec.Hosts) == 0 || b.delegated[model.Key{Namespace: v.Namespace, Name: v.Name}] != "" {
		return true
	}
	for _, h := range v.Spec.Http {
		if h.GetDelegate() != nil || slices.ContainsFunc(h.GetMatch(), func(m *networkingapi.HTTPMatchRequest) bool { return len(m.GetSourceLabels()) > 0 }) {
			return true
		}
	}
	return false
}

func (b *Builder) dropVirtual(v *networkingv1.VirtualService) {
	c := b.kept[v]
	delete(b.kept, v)
	delete(b.statuses, virtualObject(v))
	for _, s := range c.services {
		b.virtuals[s] = slices.DeleteFunc(b.virtuals[s], func(o candidate) bool { return o.virtual == c })
		b.note(s)
	}
}

// updateRoutes makes the routes of one kind others.
func updateRoutes[T interface {
	comparable
	metav1.Object
}](b *Builder, old, now []T, add func(T, *Builder) *gatewayRoute) {
	gone, come := source.Difference(old, now)
	for _, o := range gone {
		r := b.routes[o]
		delete(b.routes, o)
		delete(b.statuses, r.owner.object)
		for s := range r.parents {
			b.attached[s] = slices.DeleteFunc(b.attached[s], func(a attachment) bool { return a.route == r })
			b.note(s)
		}
	}
	for _, o := range come {
		for s := range add(o, nil).parents {
			b.note(s)
		}
	}
}

// follow notes what is other than in the state before, of which previous is.
func (b *Builder) follow(previous *Builder) {
	if !source.Same(previous.model.Services, b.model.Services) {
		return
	}
	b.oldest, b.changes = previous.oldest, slices.Clone(previous.changes)
	for _, s := range b.model.Services {
		before, beforeAlone := previous.sources(s)
		objects, alone := b.sources(s)
		if !beforeAlone || !alone || !slices.Equal(before, objects) {
			b.note(s)
		}
	}
	if extra := len(b.changes) - maxChanges; extra > 0 {
		b.oldest = b.changes[extra-1].version
		b.changes = b.changes[extra:]
	}
}
