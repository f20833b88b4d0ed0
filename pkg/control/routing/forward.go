package routing

import (
	"math"
	"net/http"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
)

// unknownService is a cluster that never exists, as istiod names it.
const unknownService = "UnknownService"

// totalWeight is what weights are scaled to where users are kept on a version.
const totalWeight = 10_000

var (
	noTimeout = durationpb.New(0)
	no        = wrapperspb.Bool(false)
	yes       = wrapperspb.Bool(true)
)

// forwarding is the action of a rule at one service port.
type forwarding struct {
	route  *routev3.RouteAction
	direct *routev3.DirectResponseAction
	// newcomers is the action for who has no affinity cookie yet, or nil.
	newcomers *routev3.RouteAction
	headers   headers
	// single is the only destination, or nil.
	single *destination
	// parts are those of the rule's.
	parts []*forwarding
}

// plainAction is a route action without timeout.
func plainAction(retry *routev3.RetryPolicy) *routev3.RouteAction {
	return &routev3.RouteAction{Timeout: noTimeout, MaxStreamDuration: nil, MaxGrpcTimeout: noTimeout, RetryPolicy: retry} //nolint:staticcheck // istiod's field, which every Envoy obeys
}

// forward fills in a rule's clusters.
func (t *table) forward(r *rule) *forwarding {
	f := &forwarding{headers: r.headers, direct: r.direct}
	for _, p := range r.parts {
		f.parts = append(f.parts, t.forward(p.rule))
	}
	if r.action == nil || len(f.parts) > 0 {
		return f
	}
	destinations := t.resolve(r)
	if len(destinations) == 0 {
		f.direct = &routev3.DirectResponseAction{Status: http.StatusInternalServerError}
		return f
	}
	f.route = copyAction(r.action)
	switch {
	case len(destinations) == 1:
		d := &destinations[0]
		f.single = d
		f.route.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: d.cluster()}
		f.headers = r.headers.with(d.headers)
	default:
		f.route.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted(destinations, r.affinity != nil)}
	}
	if f.headers.host != "" {
		f.route.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: f.headers.host}
	}
	for _, m := range r.mirrors {
		f.route.RequestMirrorPolicies = append(f.route.RequestMirrorPolicies, t.mirror(m))
	}
	f.route.HashPolicy = t.hashPolicies(destinations)
	if r.affinity != nil && (len(destinations) > 1 || r.affinity.persistent) {
		if r.affinity.generate {
			f.newcomers = copyAction(f.route)
			f.newcomers.HashPolicy = append([]*routev3.RouteAction_HashPolicy{requestIDHash}, f.route.HashPolicy...)
		}
		f.route.HashPolicy = append([]*routev3.RouteAction_HashPolicy{r.affinity.policy()}, f.route.HashPolicy...)
	}
	return f
}

// copyAction is a shallow copy: what it points to is shared.
func copyAction(a *routev3.RouteAction) *routev3.RouteAction {
	return &routev3.RouteAction{
		ClusterNotFoundResponseCode: a.ClusterNotFoundResponseCode, PrefixRewrite: a.PrefixRewrite, RegexRewrite: a.RegexRewrite,
		HostRewriteSpecifier: a.HostRewriteSpecifier, Timeout: a.Timeout, RetryPolicy: a.RetryPolicy,
		RequestMirrorPolicies: slices.Clone(a.RequestMirrorPolicies), HashPolicy: a.HashPolicy, ClusterSpecifier: a.ClusterSpecifier,
		MaxGrpcTimeout: a.MaxGrpcTimeout, //nolint:staticcheck // as plainAction
	}
}

// resolve is a rule's destinations that take requests, with their ports.
func (t *table) resolve(r *rule) []destination {
	var out []destination
	for _, d := range r.destinations {
		if d.weight == 0 {
			continue
		}
		d.port = t.portOf(d)
		if !d.invalid {
			t.need(r, d)
		}
		out = append(out, d)
	}
	return out
}

// portOf is a destination's port: the one it names, else the service's only one,
// else the one that was called.
func (t *table) portOf(d destination) uint32 {
	switch {
	case d.port != 0:
		return d.port
	case d.service != nil && len(d.service.Ports) == 1:
		return d.service.Ports[0].Number
	}
	return t.port.Number
}

// need notes a destination's cluster, and what is missing of it.
func (t *table) need(r *rule, d destination) {
	switch {
	case d.service == nil:
		t.unresolved(r.owner, "there is no service %q", d.host)
		return
	case d.service.Port(d.port) == nil:
		t.unresolved(r.owner, "service %s has no port %d", d.host, d.port)
		return
	case d.subset != "" && !t.destinations.HasSubset(d.service, d.subset):
		t.unresolved(r.owner, "no DestinationRule of %s defines the subset %q: requests to it are answered 503", d.host, d.subset)
		return
	}
	t.backends[Backend{Service: d.service, Port: d.port, Subset: d.subset, Hashed: r.affinity != nil && r.affinity.persistent}] = true
}

func (d *destination) cluster() string {
	if d.invalid && d.host == "" {
		return unknownService
	}
	return envoy.ClusterName(envoy.HTTP, d.host, d.port, d.subset)
}

// weighted are several destinations. Where users are kept on a version, versions
// have a fixed order and the weights a fixed total: a user whose hash falls below a
// version's bound stays with it for as long as the bound does not pass him.
func weighted(destinations []destination, sticky bool) *routev3.WeightedCluster {
	out := &routev3.WeightedCluster{}
	var total uint64
	for _, d := range destinations {
		total += uint64(d.weight)
	}
	if total > math.MaxUint32 {
		destinations = slices.Clone(destinations)
		scale(destinations)
	}
	if sticky {
		out.RandomValueSpecifier = &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: yes}
		destinations = slices.Clone(destinations)
		slices.SortStableFunc(destinations, func(a, b destination) int { return natural(a.cluster(), b.cluster()) })
		scale(destinations)
	}
	for i := range destinations {
		d := &destinations[i]
		c := &routev3.WeightedCluster_ClusterWeight{
			Name: d.cluster(), Weight: wrapperspb.UInt32(d.weight),
			RequestHeadersToAdd: d.headers.requestAdd, RequestHeadersToRemove: d.headers.requestRemove,
			ResponseHeadersToAdd: d.headers.responseAdd, ResponseHeadersToRemove: d.headers.responseRemove,
		}
		if d.headers.host != "" {
			c.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{HostRewriteLiteral: d.headers.host}
		}
		out.Clusters = append(out.Clusters, c)
	}
	return out
}

// scale makes the weights add up to totalWeight, by rounding the bounds between
// them, which keeps each bound monotonic in the weights' shares.
func scale(destinations []destination) {
	var total, sum, before uint64
	for _, d := range destinations {
		total += uint64(d.weight)
	}
	for i := range destinations {
		sum += uint64(destinations[i].weight)
		bound := (sum*totalWeight + total/2) / total
		destinations[i].weight, before = uint32(bound-before), bound
	}
}

// natural compares names with the numbers in them as numbers: v9 before v10.
func natural(a, b string) int {
	for a != "" && b != "" {
		x, y := digits(a), digits(b)
		if x > 0 && y > 0 {
			m, n := strings.TrimLeft(a[:x], "0"), strings.TrimLeft(b[:y], "0")
			if len(m) != len(n) {
				return len(m) - len(n)
			}
			if c := strings.Compare(m, n); c != 0 {
				return c
			}
			a, b = a[x:], b[y:]
			continue
		}
		if a[0] != b[0] {
			return int(a[0]) - int(b[0])
		}
		a, b = a[1:], b[1:]
	}
	return len(a) - len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func (t *table) mirror(m mirror) *routev3.RouteAction_RequestMirrorPolicy {
	m.port = t.portOf(m.destination)
	if m.service != nil && m.service.Port(m.port) != nil {
		t.backends[Backend{Service: m.service, Port: m.port, Subset: m.subset}] = true
	}
	return &routev3.RouteAction_RequestMirrorPolicy{
		Cluster: m.cluster(), RuntimeFraction: m.share, TraceSampled: no, DisableShadowHostSuffixAppend: true,
	}
}

// hashPolicies are what the destinations' rules hash by, each once.
func (t *table) hashPolicies(destinations []destination) (out []*routev3.RouteAction_HashPolicy) {
	for _, d := range destinations {
		if d.service == nil || d.invalid {
			continue
		}
		for _, p := range t.destinations.HashPolicies(d.service, d.port, d.subset) {
			if !slices.ContainsFunc(out, func(o *routev3.RouteAction_HashPolicy) bool { return proto.Equal(o, p) }) {
				out = append(out, p)
			}
		}
	}
	return out
}

func fraction(numerator uint32) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: millionths(numerator)}
}
