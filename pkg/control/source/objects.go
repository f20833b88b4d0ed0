package source

import (
	"cmp"
	"fmt"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Objects is one consistent state of a cluster: a directory, or an API server. It and everything it points
// to is never changed after it was published. Slices are sorted by namespace
// and name; of a kind of which nothing has changed it is the same slice in two states.
type Objects struct {
	// Generation grows with every published change, from 1.
	Generation uint64

	Namespaces            []*corev1.Namespace
	Nodes                 []*corev1.Node
	Pods                  []*corev1.Pod
	ServiceAccounts       []*corev1.ServiceAccount
	Services              []*corev1.Service
	EndpointSlices        []*discoveryv1.EndpointSlice
	Deployments           []*appsv1.Deployment
	ReplicaSets           []*appsv1.ReplicaSet
	ServiceEntries        []*networkingv1.ServiceEntry
	WorkloadEntries       []*networkingv1.WorkloadEntry
	PeerAuthentications   []*securityv1.PeerAuthentication
	AuthorizationPolicies []*securityv1.AuthorizationPolicy
	VirtualServices       []*networkingv1.VirtualService
	Telemetries           []*telemetryv1.Telemetry
	DestinationRules      []*networkingv1.DestinationRule
	Gateways              []*gatewayv1.Gateway
	HTTPRoutes            []*gatewayv1.HTTPRoute
	GRPCRoutes            []*gatewayv1.GRPCRoute
	TCPRoutes             []*gatewayv1.TCPRoute
	TLSRoutes             []*gatewayv1.TLSRoute
	ReferenceGrants       []*gatewayv1.ReferenceGrant

	// Mesh is the ConfigMap istio's key mesh over Istio's defaults; never nil.
	Mesh *meshv1alpha1.MeshConfig
	// Settings is the ConfigMap istio's key fairlead over our defaults.
	Settings Settings

	// Refused are security objects that are wrong and have no last good form.
	Refused []Refused
	// Problems are errors and warnings, sorted by file and line.
	Problems []Problem
}

// Ref names an object.
type Ref struct {
	Group, Kind, Namespace, Name string
}

// String is "Kind namespace/name", or "Kind name" outside namespaces.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

func (r Ref) compare(o Ref) int {
	return cmp.Or(cmp.Compare(r.Group, o.Group), cmp.Compare(r.Kind, o.Kind),
		cmp.Compare(r.Namespace, o.Namespace), cmp.Compare(r.Name, o.Name))
}

// Position is a place in a file. File is relative to the directory; it is empty of
// objects that an API server holds.
type Position struct {
	File string
	Line int
}

// String is "file:line".
func (p Position) String() string { return fmt.Sprintf("%s:%d", p.File, p.Line) }

// Say puts the position, if there is one, before a message.
func (p Position) Say(message string) string {
	if p.File == "" {
		return message
	}
	return p.String() + ": " + message
}

// Severity tells whether an object was taken despite a problem.
type Severity string

// The severities.
const (
	// Error: the object as written was not taken.
	Error Severity = "error"
	// Warning: it was taken, or is of no use to the mesh.
	Warning Severity = "warning"
)

// Problem is something wrong, or doubtful, in a file.
type Problem struct {
	Position
	Severity Severity
	// Ref is the object, as far as it could be told.
	Ref Ref
	// Field is the path in the object, like "spec.rules[0].from", or "".
	Field   string
	Message string
	// NotServed marks an object that is right but is not served.
	NotServed bool
	// Unknown marks a field that the kind, as this program knows it, does not have.
	Unknown bool
}

// String is "file:line: severity: object: field: message".
func (p Problem) String() string {
	s := p.Say(string(p.Severity) + ": ")
	if p.Ref.Kind != "" {
		s += p.Ref.String() + ": "
	}
	if p.Field != "" {
		s += p.Field + ": "
	}
	return s + p.Message
}

// Refused is a security object that could not be taken and has no last good
// form. What it selects must be denied.
type Refused struct {
	Ref      Ref
	Position Position
	// Selector are the labels it selects, empty: the namespace, or the mesh if
	// the namespace is the root namespace.
	Selector map[string]string
	// Targeted: it is for waypoints, by targetRefs. Targets are those that could
	// be read, with their group, kind and name; none: all of its namespace.
	Targeted bool
	Targets  []Ref
	Reason   string
}

// Difference is what two states of one kind differ in: objects that are gone or were
// another, and those that came or are another. Both are sorted. An object that was
// read again counts as another.
func Difference[T interface {
	comparable
	metav1.Object
}](before, now []T) (gone, come []T) {
	if Same(before, now) {
		return nil, nil
	}
	for len(before) > 0 && len(now) > 0 {
		if before[0] == now[0] {
			before, now = before[1:], now[1:]
			continue
		}
		c := compareNames(before[0], now[0])
		if c <= 0 {
			gone, before = append(gone, before[0]), before[1:]
		}
		if c >= 0 {
			come, now = append(come, now[0]), now[1:]
		}
	}
	return append(gone, before...), append(come, now...)
}

// Same tells whether two lists are one, without a look at what is in them.
func Same[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
