package source

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// File is one file of YAML.
type File struct {
	// Name is used in messages.
	Name string
	Data []byte
}

// Parse decodes files once, with no memory of earlier states. An object in
// derived takes the place of one of the same name in config.
func Parse(config, derived []File) *Objects {
	var l ledger
	for _, f := range config {
		l.put(f.Name, false, f.Data)
	}
	for _, f := range derived {
		l.put(f.Name, true, f.Data)
	}
	return l.objects()
}

// entry is one file with what is in force of it.
type entry struct {
	name    string
	derived bool
	now     *parsed // of the text as it is
	good    *parsed // of the last text without errors, or nil
	leaving bool    // missing or empty, perhaps for the moment of a save or a rename
}

// taken is what is in force: the last good state, else as much as could be read.
func (e *entry) taken() *parsed {
	if e.good != nil {
		return e.good
	}
	return e.now
}

// ledger remembers the files between readings.
type ledger struct {
	entries map[entryKey]*entry
	// owner is the file that each object came from, so that a copy elsewhere
	// does not take its place.
	owner map[Ref]string
}

type entryKey struct {
	name    string
	derived bool
}

func (l *ledger) entry(name string, derived bool) *entry {
	if l.entries == nil {
		l.entries, l.owner = map[entryKey]*entry{}, map[Ref]string{}
	}
	key := entryKey{name, derived}
	if l.entries[key] == nil {
		l.entries[key] = &entry{name: name, derived: derived}
	}
	return l.entries[key]
}

func (l *ledger) put(name string, derived bool, data []byte) {
	e := l.entry(name, derived)
	e.leaving = false
	e.now = parseFile(name, data)
	if !e.now.broken() {
		e.good = e.now
	}
}

// unreadable notes that a file is there and cannot be read.
func (l *ledger) unreadable(name string, derived bool, err error) {
	e := l.entry(name, derived)
	e.now = &parsed{}
	e.now.fail(Position{name, 1}, Ref{}, "", err.Error())
}

func (l *ledger) drop(name string, derived bool) { delete(l.entries, entryKey{name, derived}) }

// leaving notes that a file is missing or empty. What it held stays, unless
// another file has it now.
func (l *ledger) leaving(name string, derived, leaving bool) {
	if e := l.entries[entryKey{name, derived}]; e != nil {
		e.leaving = leaving
	}
}

// sorted puts derived files first, whose objects win, and leaving ones last.
func (l *ledger) sorted() []*entry {
	rank := func(e *entry) int {
		switch {
		case e.leaving:
			return 2
		case e.derived:
			return 0
		}
		return 1
	}
	return slices.SortedFunc(maps.Values(l.entries), func(a, b *entry) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.name, b.name))
	})
}

// objects makes a snapshot of all files.
func (l *ledger) objects() *Objects {
	o := &Objects{Mesh: DefaultMesh(), Settings: DefaultSettings(), Positions: map[Ref]Position{}}
	chosen := l.choose(o)
	for _, obj := range chosen {
		o.add(obj.value)
		o.Positions[obj.ref] = obj.pos
	}
	l.chooseMesh(o)
	owner := make(map[Ref]string, len(chosen))
	for ref, obj := range chosen {
		owner[ref] = obj.pos.File
	}
	l.owner = owner
	for _, e := range l.entries {
		o.Refused = append(o.Refused, e.taken().refused...)
		for _, p := range e.now.problems {
			if e.good != nil && e.good != e.now && p.Severity == Error && !p.NotServed {
				p.Message += " (what the file held before stays in force)"
			}
			o.Problems = append(o.Problems, p)
		}
	}
	o.sort()
	return o
}

// choose picks one object per name: a derived one, else the one that was there
// before, else the first by file.
func (l *ledger) choose(o *Objects) map[Ref]object {
	chosen := map[Ref]object{}
	derived := map[Ref]bool{}
	for _, e := range l.sorted() {
		for _, obj := range e.taken().objects {
			first, twice := chosen[obj.ref]
			switch {
			case !twice:
				chosen[obj.ref], derived[obj.ref] = obj, e.derived
				continue
			case derived[obj.ref] && !e.derived, e.leaving:
				continue
			}
			winner, loser := first, obj
			if l.owner[obj.ref] == obj.pos.File && first.pos.File != obj.pos.File {
				winner, loser = obj, first
				chosen[obj.ref] = winner
			}
			o.Problems = append(o.Problems, Problem{Position: loser.pos, Severity: Error, Ref: loser.ref,
				Message: fmt.Sprintf("the same object is in %s, and that one is used: remove one of the two", winner.pos)})
		}
	}
	return chosen
}

func (l *ledger) chooseMesh(o *Objects) {
	var used *meshConfig
	for _, e := range l.sorted() {
		for i := range e.taken().mesh {
			m := &e.taken().mesh[i]
			if used != nil && e.leaving {
				continue
			}
			if used != nil {
				o.Problems = append(o.Problems, Problem{Position: m.pos, Severity: Error, Ref: m.ref,
					Message: fmt.Sprintf("the same object is in %s, and that one is used: remove one of the two", used.pos)})
				continue
			}
			used = m
			o.Mesh, o.Settings = m.mesh, m.settings
			o.Positions[m.ref] = m.pos
		}
	}
}

func (o *Objects) add(value metav1.Object) {
	switch v := value.(type) {
	case *corev1.Namespace:
		o.Namespaces = append(o.Namespaces, v)
	case *corev1.Node:
		o.Nodes = append(o.Nodes, v)
	case *corev1.Pod:
		o.Pods = append(o.Pods, v)
	case *corev1.ServiceAccount:
		o.ServiceAccounts = append(o.ServiceAccounts, v)
	case *corev1.Service:
		o.Services = append(o.Services, v)
	case *discoveryv1.EndpointSlice:
		o.EndpointSlices = append(o.EndpointSlices, v)
	case *appsv1.Deployment:
		o.Deployments = append(o.Deployments, v)
	case *appsv1.ReplicaSet:
		o.ReplicaSets = append(o.ReplicaSets, v)
	case *networkingv1.ServiceEntry:
		o.ServiceEntries = append(o.ServiceEntries, v)
	case *networkingv1.WorkloadEntry:
		o.WorkloadEntries = append(o.WorkloadEntries, v)
	case *securityv1.PeerAuthentication:
		o.PeerAuthentications = append(o.PeerAuthentications, v)
	case *securityv1.AuthorizationPolicy:
		o.AuthorizationPolicies = append(o.AuthorizationPolicies, v)
	case *gatewayv1.Gateway:
		o.Gateways = append(o.Gateways, v)
	case *networkingv1.VirtualService:
		o.VirtualServices = append(o.VirtualServices, v)
	case *networkingv1.DestinationRule:
		o.DestinationRules = append(o.DestinationRules, v)
	case *telemetryv1.Telemetry:
		o.Telemetries = append(o.Telemetries, v)
	case *gatewayv1.HTTPRoute:
		o.HTTPRoutes = append(o.HTTPRoutes, v)
	case *gatewayv1.GRPCRoute:
		o.GRPCRoutes = append(o.GRPCRoutes, v)
	case *gatewayv1.TCPRoute:
		o.TCPRoutes = append(o.TCPRoutes, v)
	case *gatewayv1.TLSRoute:
		o.TLSRoutes = append(o.TLSRoutes, v)
	case *gatewayv1.ReferenceGrant:
		o.ReferenceGrants = append(o.ReferenceGrants, v)
	}
}

func (o *Objects) sort() {
	sortObjects(o.Namespaces)
	sortObjects(o.Nodes)
	sortObjects(o.Pods)
	sortObjects(o.ServiceAccounts)
	sortObjects(o.Services)
	sortObjects(o.EndpointSlices)
	sortObjects(o.Deployments)
	sortObjects(o.ReplicaSets)
	sortObjects(o.ServiceEntries)
	sortObjects(o.WorkloadEntries)
	sortObjects(o.PeerAuthentications)
	sortObjects(o.AuthorizationPolicies)
	sortObjects(o.Gateways)
	sortObjects(o.VirtualServices)
	sortObjects(o.DestinationRules)
	sortObjects(o.Telemetries)
	sortObjects(o.HTTPRoutes)
	sortObjects(o.GRPCRoutes)
	sortObjects(o.TCPRoutes)
	sortObjects(o.TLSRoutes)
	sortObjects(o.ReferenceGrants)
	slices.SortFunc(o.Refused, func(a, b Refused) int {
		return cmp.Or(a.Ref.compare(b.Ref), cmp.Compare(a.Position.File, b.Position.File), cmp.Compare(a.Position.Line, b.Position.Line))
	})
	slices.SortFunc(o.Problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), a.Ref.compare(b.Ref), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
}

func sortObjects[T metav1.Object](s []T) {
	slices.SortFunc(s, func(a, b T) int {
		return cmp.Or(cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
}
