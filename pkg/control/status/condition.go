package status

import (
	"cmp"
	"slices"
)

// Condition types. Istio's, but for the last two.
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
)

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

// Address is an allocated address of a host.
type Address struct {
	Host  string `json:"host,omitempty"`
	Value string `json:"value"`
}

// Status is everything said about one object.
type Status struct {
	Object     Object
	Conditions []Condition
	// Addresses are those allocated to a ServiceEntry.
	Addresses []Address
}

// Set adds c, or replaces the condition of its type; conditions stay sorted.
func (s *Status) Set(c Condition) {
	i, found := slices.BinarySearchFunc(s.Conditions, c.Type, func(x Condition, t string) int { return cmp.Compare(x.Type, t) })
	if found {
		s.Conditions[i] = c
		return
	}
	s.Conditions = slices.Insert(s.Conditions, i, c)
}

// Sort orders statuses by object.
func Sort(all []Status) {
	slices.SortFunc(all, func(a, b Status) int { return a.Object.compare(b.Object) })
}
