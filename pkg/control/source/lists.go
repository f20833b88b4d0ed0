package source

import (
	"cmp"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// list is the objects of one kind in a snapshot that is being made. Until it is
// changed it is the slice of the snapshot before.
type list interface {
	// add appends; sort must follow.
	add(metav1.Object)
	sort()
	// put makes the object of a name another one, nil: none. Either may be absent.
	put(old, now metav1.Object)
}

type listOf[T metav1.Object] struct {
	at  *[]T
	own bool // it is not the slice of the snapshot before any more
}

func (l *listOf[T]) add(o metav1.Object) { *l.at = append(*l.at, o.(T)) }

func (l *listOf[T]) sort() { slices.SortFunc(*l.at, func(a, b T) int { return compareNames(a, b) }) }

func compareNames(a, b metav1.Object) int {
	return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

func (l *listOf[T]) put(old, now metav1.Object) {
	if !l.own {
		*l.at, l.own = slices.Clone(*l.at), true
	}
	of := now
	if of == nil {
		of = old
	}
	i, found := slices.BinarySearchFunc(*l.at, of, func(x T, o metav1.Object) int { return compareNames(x, o) })
	switch {
	case now == nil && found:
		*l.at = slices.Delete(*l.at, i, i+1)
	case now != nil && found:
		(*l.at)[i] = now.(T)
	case now != nil:
		*l.at = slices.Insert(*l.at, i, now.(T))
	}
}

// lists are those of a snapshot, by the type of their objects.
func (o *Objects) lists() map[reflect.Type]list {
	out := make(map[reflect.Type]list, 24)
	hold(out, &o.Namespaces)
	hold(out, &o.Nodes)
	hold(out, &o.Pods)
	hold(out, &o.ServiceAccounts)
	hold(out, &o.Services)
	hold(out, &o.EndpointSlices)
	hold(out, &o.Deployments)
	hold(out, &o.ReplicaSets)
	hold(out, &o.ServiceEntries)
	hold(out, &o.WorkloadEntries)
	hold(out, &o.PeerAuthentications)
	hold(out, &o.AuthorizationPolicies)
	hold(out, &o.Gateways)
	hold(out, &o.VirtualServices)
	hold(out, &o.DestinationRules)
	hold(out, &o.Telemetries)
	hold(out, &o.HTTPRoutes)
	hold(out, &o.GRPCRoutes)
	hold(out, &o.TCPRoutes)
	hold(out, &o.TLSRoutes)
	hold(out, &o.ReferenceGrants)
	return out
}

func hold[T metav1.Object](lists map[reflect.Type]list, at *[]T) {
	lists[reflect.TypeFor[T]()] = &listOf[T]{at: at}
}

// gather makes the lists hold exactly the objects chosen.
func (o *Objects) gather(chosen map[Ref]object) {
	*o = Objects{Generation: o.Generation, Mesh: o.Mesh, Settings: o.Settings, Refused: o.Refused, Problems: o.Problems}
	lists := o.lists()
	for _, c := range chosen {
		if l := lists[reflect.TypeOf(c.value)]; l != nil {
			l.add(c.value)
		}
	}
	for _, l := range lists {
		l.sort()
	}
}
