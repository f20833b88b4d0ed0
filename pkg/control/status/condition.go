package status

import (
	"cmp"
	"slices"
)

// Condition types. Istio's, but for those that begin with fairlead.dev.
const (
	ZtunnelAccepted   = "ZtunnelAccepted"
	WaypointAccepted  = "WaypointAccepted"
	WaypointBound     = "istio.io/WaypointBound"
	WaypointMissing   = "istio.io/WaypointMissing"
	VisibilityApplied = "istio.io/VisibilityApplied"
	// Accepted is false on an object that could not be taken as written.
	Accepted = "fairlead.dev/Accepted"
	// Served is false on a ServiceEntry host that another object already has.
	Served = "fairlead.dev/Served"
	// InEffect is false on an object whose rules no proxy acts on.
	InEffect = "fairlead.dev/InEffect"
	// StreamsInEffect is false on a VirtualService of whose tcp and tls rules some
	// are not acted on.
	StreamsInEffect = "fairlead.dev/StreamsInEffect"
	// DestinationsResolved is false on a VirtualService that names a service, port
	// or subset that is not there.
	DestinationsResolved = "fairlead.dev/DestinationsResolved"
)

// Condition types of a route's parent and of a Gateway, of the Gateway API but for
// ResolvedWaypoints, which is Istio's.
const (
	RouteAccepted     = "Accepted"
	RouteResolvedRefs = "ResolvedRefs"
	// RoutePartiallyInvalid is there, and true, on a route some rules of which are
	// not used.
	RoutePartiallyInvalid = "PartiallyInvalid"
	ResolvedWaypoints     = "ResolvedWaypoints"
	// Programmed is a Gateway's: it can be reached.
	Programmed = "Programmed"
)

// Controller is the name under which the statuses of a route's parents are written.
const Controller = "fairlead.dev/gateway-controller"

// Object names what a status is of.
type Object struct {
	APIVersion, Kind, Namespace, Name string
}

func (o Object) compare(p Object) int {
	return cmp.Or(cmp.Compare(o.APIVersion, p.APIVersion), cmp.Compare(o.Kind, p.Kind),
		cmp.Compare(o.Namespace, p.Namespace), cmp.Compare(o.Name, p.Name))
}

// Condition is one statement about an object.
type Condition struct {
	Type string `json:"type"`
	// Status is True or False, as in Kubernetes.
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Address is an allocated address of a host, or of a Gateway, which has a type.
type Address struct {
	Type  string `json:"type,omitempty"`
	Host  string `json:"host,omitempty"`
	Value string `json:"value"`
}

// Listener is what is said about a Gateway's listener.
type Listener struct {
	Name           string      `json:"name"`
	AttachedRoutes int32       `json:"attachedRoutes"`
	SupportedKinds []Kind      `json:"supportedKinds"`
	Conditions     []Condition `json:"conditions"`
}

// Kind is one of routes.
type Kind struct {
	Group string `json:"group"`
	Kind  string `json:"kind"`
}

// Set adds c, or replaces the condition of its type; conditions stay sorted.
func (l *Listener) Set(c Condition) { l.Conditions = set(l.Conditions, c) }

// Parent is what is said about a Gateway API route as one parent sees it.
type Parent struct {
	Ref        ParentRef   `json:"parentRef"`
	Controller string      `json:"controllerName"`
	Conditions []Condition `json:"conditions"`
}

// ParentRef names a parent as the route does; what the route leaves out is empty.
type ParentRef struct {
	Group       string `json:"group"`
	Kind        string `json:"kind,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name"`
	SectionName string `json:"sectionName,omitempty"`
	Port        int32  `json:"port,omitempty"`
}

// Set adds c, or replaces the condition of its type; conditions stay sorted.
func (p *Parent) Set(c Condition) { p.Conditions = set(p.Conditions, c) }

// Status is everything said about one object.
type Status struct {
	Object     Object
	Conditions []Condition
	// Parents are those of a Gateway API route, in the route's order.
	Parents []Parent
	// Addresses are those allocated to a ServiceEntry, or a Gateway's.
	Addresses []Address
	// Listeners are a Gateway's, in its order.
	Listeners []Listener
}

// Set adds c, or replaces the condition of its type; conditions stay sorted.
func (s *Status) Set(c Condition) { s.Conditions = set(s.Conditions, c) }

func set(all []Condition, c Condition) []Condition {
	i, found := slices.BinarySearchFunc(all, c.Type, func(x Condition, t string) int { return cmp.Compare(x.Type, t) })
	if found {
		all[i] = c
		return all
	}
	return slices.Insert(all, i, c)
}

// Sort orders statuses by object.
func Sort(all []Status) {
	slices.SortFunc(all, func(a, b Status) int { return a.Object.compare(b.Object) })
}

// Join puts what several said about the same objects together, sorted. Of two
// conditions of one type the later list's counts.
func Join(lists ...[]Status) []Status {
	n := 0
	for _, list := range lists {
		n += len(list)
	}
	at, out := make(map[Object]int, n), make([]Status, 0, n)
	for _, list := range lists {
		for _, s := range list {
			i, known := at[s.Object]
			if !known {
				i = len(out)
				at[s.Object] = i
				out = append(out, Status{Object: s.Object})
			}
			one := &out[i]
			for _, c := range s.Conditions {
				one.Set(c)
			}
			one.Parents = append(one.Parents, s.Parents...)
			one.Addresses = append(one.Addresses, s.Addresses...)
			one.Listeners = append(one.Listeners, s.Listeners...)
		}
	}
	Sort(out)
	return out
}

// Equal tells whether two statuses say the same of one object.
func (s Status) Equal(o Status) bool {
	return s.Object == o.Object && slices.Equal(s.Conditions, o.Conditions) && slices.Equal(s.Addresses, o.Addresses) &&
		slices.EqualFunc(s.Parents, o.Parents, func(a, b Parent) bool {
			return a.Ref == b.Ref && a.Controller == b.Controller && slices.Equal(a.Conditions, b.Conditions)
		}) &&
		slices.EqualFunc(s.Listeners, o.Listeners, func(a, b Listener) bool {
			return a.Name == b.Name && a.AttachedRoutes == b.AttachedRoutes && slices.Equal(a.SupportedKinds, b.SupportedKinds) && slices.Equal(a.Conditions, b.Conditions)
		})
}
