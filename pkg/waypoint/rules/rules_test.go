package rules

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// generated is what protoc-gen-validate makes of the same rules.
type generated interface {
	proto.Message
	Validate() error
	ValidateAll() error
}

// compare holds one verdict against the other, and reports it. Where it is bad, what
// it names must be among all that the generated code finds.
func compare(t *testing.T, m generated) (valid bool) {
	t.Helper()
	ours, theirs := Check(m), m.Validate()
	if (ours == nil) != (theirs == nil) {
		t.Fatalf("%s: %v, but the generated code says %v; of\n%v", m.ProtoReflect().Descriptor().FullName(), ours, theirs, m)
	}
	if ours == nil {
		return true
	}
	var v *violation
	if !errors.As(ours, &v) {
		t.Fatalf("%T", ours)
	}
	all := map[string]bool{}
	paths(m.ValidateAll(), "", all)
	if want := plain(unquoted(v.path)); !all[want] {
		t.Fatalf("%s: %v, which is not among %v; of\n%v", m.ProtoReflect().Descriptor().FullName(), ours, all, m)
	}
	return false
}

// paths collects where the errors of generated code are.
func paths(err error, at string, into map[string]bool) {
	if many, ok := err.(interface{ AllErrors() []error }); ok {
		for _, err := range many.AllErrors() {
			paths(err, at, into)
		}
		return
	}
	one, ok := err.(interface {
		Field() string
		Cause() error
	})
	if !ok {
		return
	}
	at += "." + plain(one.Field())
	into[strings.TrimPrefix(at, ".")] = true
	if one.Cause() != nil {
		paths(one.Cause(), at, into)
	}
}

// plain makes one of route_config.name and RouteConfig.Name.
func plain(path string) string {
	return strings.ToLower(strings.ReplaceAll(path, "_", ""))
}

// unquoted takes the quotes from keys of maps.
func unquoted(path string) string {
	before, key, found := strings.Cut(path, `["`)
	if !found {
		return path
	}
	quoted, _ := strconv.QuotedPrefix(`"` + key)
	key, _ = strconv.Unquote(quoted)
	return before + "[" + key + unquoted(path[len(before)+1+len(quoted):])
}

// inner calls f with m and each message in it that has rules.
func inner(m protoreflect.Message, f func(generated)) {
	if g, ok := m.Interface().(generated); ok {
		f(g)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					inner(v.Message(), f)
					return true
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				inner(v.List().Get(i).Message(), f)
			}
		default:
			inner(v.Message(), f)
		}
		return true
	})
}

var kinds = []generated{
	&routev3.RouteConfiguration{}, &routev3.VirtualHost{}, &routev3.Route{}, &routev3.RouteAction{}, &routev3.WeightedCluster{}, &routev3.RetryPolicy{},
	&clusterv3.Cluster{}, &listenerv3.Listener{}, &hcmv3.HttpConnectionManager{},
}

// TestRandom holds that a verdict is that of the code that is generated from the
// rules, for random messages, and for each message in them.
func TestRandom(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	good, bad := 0, 0
	for i := range 6000 {
		m := kinds[i%len(kinds)].ProtoReflect().New()
		fill(random, m, 0, 1+random.IntN(12))
		inner(m, func(g generated) {
			if compare(t, g) {
				good++
			} else {
				bad++
			}
		})
	}
	t.Logf("%d valid messages, %d others", good, bad)
	if good < 5000 || bad < 5000 {
		t.Error("too few of one kind")
	}
}

// TestChanged holds it for valid messages of which one field was changed.
func TestChanged(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	bases := []generated{richRoute(t), richHost(t), richConfiguration(t)}
	for len(bases) < 400 {
		m := kinds[len(bases)%len(kinds)].ProtoReflect().New()
		fill(random, m, 0, 3+random.IntN(12))
		inner(m, func(g generated) {
			if g.Validate() == nil {
				bases = append(bases, g)
			}
		})
	}
	good, bad := 0, 0
	for _, base := range bases {
		for which := 0; ; which++ {
			m, _ := proto.Clone(base).(generated)
			left := which
			if !change(random, m.ProtoReflect(), &left, 0) {
				break
			}
			if compare(t, m) {
				good++
			} else {
				bad++
			}
		}
	}
	t.Logf("%d valid messages, %d others", good, bad)
	if good < 2000 || bad < 1000 {
		t.Error("too few of one kind")
	}
}

// change makes the left-th possible change of a message, and reports whether there is
// one: a field is cleared, or set to something at an edge.
func change(random *rand.Rand, m protoreflect.Message, left *int, depth int) bool {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		for way := range 3 {
			if *left--; *left >= 0 {
				continue
			}
			switch {
			case way == 0:
				m.Clear(fd)
			case fd.IsMap() || fd.IsList() || fd.Message() == nil:
				set(random, m, fd, depth, 1)
			default:
				m.Set(fd, m.NewField(fd)) // an empty message
			}
			return true
		}
		if !m.Has(fd) || fd.Message() == nil {
			continue
		}
		switch {
		case fd.IsMap():
		case fd.IsList():
			for i := range m.Get(fd).List().Len() {
				if change(random, m.Mutable(fd).List().Get(i).Message(), left, depth+1) {
					return true
				}
			}
		default:
			if change(random, m.Mutable(fd).Message(), left, depth+1) {
				return true
			}
		}
	}
	return false
}

// fill sets about one in rarity of a message's fields.
func fill(random *rand.Rand, m protoreflect.Message, depth, rarity int) {
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		d.Seconds = []int64{0, 0, 1, 30, -1, math.MaxInt64}[random.IntN(6)]
		d.Nanos = []int32{0, 0, 1, 1e6, 5e8, -1}[random.IntN(6)]
		return
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fields.Len() == 1 || random.IntN(rarity) == 0 && depth < 6 {
			set(random, m, fields.Get(i), depth, rarity)
		}
	}
}

func set(random *rand.Rand, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth, rarity int) {
	if depth > 8 {
		return
	}
	of := fd
	if fd.IsMap() {
		of = fd.MapValue()
	}
	value := func(v protoreflect.Value) protoreflect.Value {
		if of.Message() == nil {
			return scalar(random, of)
		}
		fill(random, v.Message(), depth+1, rarity)
		return v
	}
	switch {
	case fd.IsMap():
		if entries := m.Mutable(fd).Map(); fd.MapKey().Kind() == protoreflect.StringKind {
			for range random.IntN(3) {
				entries.Set(scalar(random, fd.MapKey()).MapKey(), value(entries.NewValue()))
			}
		}
	case fd.IsList():
		l := m.Mutable(fd).List()
		for range random.IntN(4) {
			l.Append(value(l.NewElement()))
		}
	case fd.Message() != nil:
		m.Set(fd, value(m.NewField(fd)))
	default:
		m.Set(fd, scalar(random, fd))
	}
}

var texts = []string{
	"", "a", "x-user", "/path", "/path/", "a b", "a\nb", "nul\x00", "%REQ(x)%", "%", "a?b", "tab\t", ":path", "ü", "a,b", "outlier",
	strings.Repeat("n", 1024), strings.Repeat("n", 1025), strings.Repeat("ü", 600), strings.Repeat("n", 16384), strings.Repeat("n", 16385),
}

func scalar(random *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := []int64{0, 1, 2, 3, 50, 100, 101, 128, 129, 199, 200, 255, 256, 503, 599, 600, 65535, 65536, 1 << 23, 1<<23 + 1, 1e9, 1e9 + 1, math.MaxInt32}[random.IntN(23)]
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber([]int64{0, 1, 2, 3, n, -1}[random.IntN(6)]))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(n))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(n)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64([]float64{float64(n), -1, 0.5, math.NaN()}[random.IntN(4)])
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32([]float32{float32(n), -1, 0.5}[random.IntN(3)])
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(texts[random.IntN(len(texts))]))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(strings.ToValidUTF8(texts[random.IntN(len(texts))], ""))
	}
	panic(fmt.Sprint(fd.Kind()))
}

// TestKnown holds that no rule of a message that may come is unknown here.
func TestKnown(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var walk func(d protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		n := nodeOf(d)
		if n.once.Do(n.compile); n.unknown != nil {
			t.Errorf("%s.%v", d.FullName(), n.unknown)
		}
		for i := range d.Fields().Len() {
			if inner := d.Fields().Get(i).Message(); inner != nil {
				walk(inner)
			}
		}
	}
	for _, kind := range kinds {
		walk(kind.ProtoReflect().Descriptor())
	}
	t.Logf("%d kinds of messages", len(seen))
}

// What is said of a broken rule.
func TestError(t *testing.T) {
	for want, spoil := range map[string]func(*routev3.Route){
		"match is required":                                       func(r *routev3.Route) { r.Match = nil },
		"action is required: set one of its fields":               func(r *routev3.Route) { r.Action = nil },
		"match.path_specifier is required: set one of its fields": func(r *routev3.Route) { r.Match.PathSpecifier = nil },
		"match.headers[1].name must not be empty":                 func(r *routev3.Route) { r.Match.Headers[1].Name = "" },
		"match.query_parameters[0].string_match is required": func(r *routev3.Route) {
			r.Match.QueryParameters[0].QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{}
		},
		"route.weighted_clusters.clusters must not be empty": func(r *routev3.Route) { r.GetRoute().GetWeightedClusters().Clusters = nil },
		"route.retry_policy.retry_back_off.base_interval must be more than 0s, and is -1s": func(r *routev3.Route) {
			r.GetRoute().RetryPolicy.RetryBackOff.BaseInterval = &durationpb.Duration{Seconds: -1}
		},
		"route.retry_policy.rate_limited_retry_back_off.reset_headers must not be empty": func(r *routev3.Route) {
			r.GetRoute().RetryPolicy.RateLimitedRetryBackOff = &routev3.RetryPolicy_RateLimitedRetryBackOff{}
		},
		"direct_response.status must be at least 200, and is 99": func(r *routev3.Route) {
			r.Action = &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 99}}
		},
		`metadata.filter_metadata[""] has a key that must not be empty`: func(r *routev3.Route) { r.Metadata.FilterMetadata[""] = nil },
		"request_headers_to_remove[1] must not contain a line break or a zero byte": func(r *routev3.Route) {
			r.RequestHeadersToRemove = []string{"a", "b\r\nc"}
		},
		"route.hash_policy[0].header.header_name must not be empty": func(r *routev3.Route) {
			r.GetRoute().HashPolicy[0].GetHeader().HeaderName = ""
		},
		"route.hedge_policy.initial_requests must be at least 1, and is 0": func(r *routev3.Route) {
			r.GetRoute().HedgePolicy = &routev3.HedgePolicy{InitialRequests: wrapperspb.UInt32(0)}
		},
		"route.cluster_not_found_response_code is 77, which is no value of envoy.config.route.v3.RouteAction.ClusterNotFoundResponseCode": func(r *routev3.Route) {
			r.GetRoute().ClusterNotFoundResponseCode = 77
		},
	} {
		m := richRoute(t)
		if err := Check(m); err != nil {
			t.Fatal(err)
		}
		spoil(m)
		if got := Check(m); got == nil || got.Error() != want {
			t.Errorf("got %v, want %s", got, want)
		}
		compare(t, m)
	}
}
