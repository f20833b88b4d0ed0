package envoy

import (
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// annotationXFCC on a waypoint's Gateway asks for the caller's identity in
// x-forwarded-client-cert.
const annotationXFCC = "ambient.istio.io/xfcc-include-client-identity"

const maxDirectResponse = 1 << 20

// routes makes the route configuration of a port, and the clusters that it leads
// to. It gives its name.
func (g *generator) routes(s *model.Service, p *model.Port) string {
	name := ClusterName(HTTP, s.Hostname, p.Number, "")
	g.service(Backend{Service: s, Port: p.Number, Kind: HTTP})
	if g.o.Parts.Routes == nil {
		config := defaultRoutes(name, name, p.Number, s.Hostname)
		for _, v := range config.VirtualHosts {
			for _, r := range v.Routes {
				r.GetRoute().HashPolicy = destination.HashPolicies(g.rules.For(s).Policy(p.Number, ""))
			}
		}
		onlyHost(config, s, p)
		g.route(config)
		return name
	}
	routes, err := g.o.Parts.Routes(s, p)
	g.fail(err)
	g.out.Routes[name] = RouteConfiguration(g.w, g.o, s, p, routes)
	for _, b := range routes.Backends {
		g.service(b)
	}
	return name
}

// onlyHost keeps a service whose requests are sent to the host that they name to
// its own hosts, with and without the port.
func onlyHost(c *routev3.RouteConfiguration, s *model.Service, p *model.Port) {
	if s.Resolution != networkingapi.ServiceEntry_DYNAMIC_DNS {
		return
	}
	for _, v := range c.VirtualHosts {
		if slices.Equal(v.Domains, []string{"*"}) || slices.Equal(v.Domains, []string{s.Hostname}) {
			v.Domains = []string{s.Hostname, fmt.Sprintf("%s:%d", s.Hostname, p.Number)}
		}
	}
}

func (g *generator) route(c *routev3.RouteConfiguration) {
	finish(g.w, g.o, c)
	g.out.Routes[c.Name] = c
}

// RouteConfiguration is what [Generate] makes of the routes of one port. It takes
// their configuration over.
func RouteConfiguration(w *model.Waypoint, o Options, s *model.Service, p *model.Port, r Routes) *routev3.RouteConfiguration {
	c := r.Config
	if c == nil {
		c = &routev3.RouteConfiguration{}
	}
	c.Name = ClusterName(HTTP, s.Hostname, p.Number, "")
	onlyHost(c, s, p)
	finish(w, o, c)
	return c
}

// finish adds to a route configuration what all have.
func finish(w *model.Waypoint, o Options, c *routev3.RouteConfiguration) {
	c.ValidateClusters = wrapperspb.Bool(false)
	c.MaxDirectResponseBodySizeBytes = u32(maxDirectResponse)
	if w.Gateway.GetAnnotations()[annotationXFCC] == "true" {
		c.RequestHeadersToAdd = append(c.RequestHeadersToAdd, &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: "x-forwarded-client-cert", Value: "URI=%FILTER_STATE(" + statePeerPrincipal + ":PLAIN)%"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		})
	}
	if !o.IstioExtensions {
		for _, v := range c.VirtualHosts {
			for _, r := range v.Routes {
				if r.Decorator != nil { // without tracing it is of use to none, and Envoy tells it to clients
					r.Decorator = nil
				}
			}
		}
	}
}

// defaultRoutes lead all requests to a cluster.
func defaultRoutes(name, cluster string, port uint32, host string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: fmt.Sprintf("inbound|http|%d", port), Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Name: "default", Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Decorator: &routev3.Decorator{Operation: fmt.Sprintf("%s:%d/*", host, port)},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{
				ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster},
				Timeout:          seconds(0), RetryPolicy: defaultRetries(),
				MaxGrpcTimeout: seconds(0), //nolint:staticcheck // istiod's field, which every Envoy obeys
			}},
		}},
	}}}
}

// defaultRetries are the mesh's retries for routes that say nothing of them.
func defaultRetries() *routev3.RetryPolicy {
	predicate := &anypb.Any{TypeUrl: "type.googleapis.com/" + string((&previoushostsv3.PreviousHostsPredicate{}).ProtoReflect().Descriptor().FullName())}
	return &routev3.RetryPolicy{
		RetryOn: "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", NumRetries: u32(2),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: predicate}}},
		HostSelectionRetryMaxAttempts: 5,
	}
}
