package router

import (
	"errors"
	"log/slog"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/live"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Clusters finds clusters by name.
type Clusters interface {
	// Get returns nil where there is none.
	Get(name string) *cluster.Cluster
}

// Authorizer decides whether the caller may reach an endpoint, by the policies that
// hold for the workload there; or the reason why not.
//
// An endpoint that is new and in the mesh, and of which nothing is known yet, is waited
// for. Of one that is not new, since it was asked for before, nothing may be known any
// more.
type Authorizer func(c *streaminfo.Connection, destination netip.AddrPort, newInMesh bool) error

// Options of a [Router].
type Options struct {
	Clusters  Clusters   // must be non-nil
	Keep      *Keep      // of the process; must be non-nil
	Authorize Authorizer // or nil: the destination decides
	// Workload labels who has an address, for the record; or nil: what the endpoints
	// themselves say is taken.
	Workload func(netip.Addr) *streaminfo.Workload
	// SuppressEnvoyHeaders leaves out x-envoy-* fields that tell of the proxy
	// (Envoy's router.v3.Router.suppress_envoy_headers).
	SuppressEnvoyHeaders bool
	// Guard catches what goes wrong in goroutines of exchanges; or nil.
	Guard *guard.Guard
	// Live keeps what goes on after an upgrade; or nil.
	Live   *live.Set
	Logger *slog.Logger // must be non-nil
}

// Router forwards exchanges.
type Router struct{ o Options }

// New returns a router.
func New(o Options) (*Router, error) {
	if o.Clusters == nil || o.Keep == nil || o.Logger == nil {
		return nil, errors.New("router: Clusters, Keep and Logger must be set")
	}
	return &Router{o}, nil
}

// Forward answers an exchange as its route says. It returns when the exchange is
// over.
func (r *Router) Forward(d Downstream, x *filter.Context, c *Call) {
	switch {
	case c.Route == nil:
		d.Reply(&filter.Reply{Status: 404, Flags: streaminfo.NoRouteFound, Details: "route_not_found"})
	case c.Route.Redirect != nil:
		d.Reply(redirect(c.Route, x))
	case c.Route.Direct != nil:
		d.Reply(&filter.Reply{Status: c.Route.Direct.Status, Body: c.Route.Direct.Body(x.Info), ContentType: c.Route.Direct.ContentType, Details: "direct_response"})
	default:
		r.upstream(d, x, c)
	}
}

// Known is a cluster's name with its metadata, or nothing where there is none.
func (r *Router) Known(name string) (string, streaminfo.Metadata) {
	if cl := r.o.Clusters.Get(name); cl != nil {
		return name, cl.Metadata()
	}
	return "", nil
}

func redirect(rt *route.Route, x *filter.Context) *filter.Reply {
	location := rt.Location(&route.Input{Request: x.Request, Info: x.Info, Random: x.Info.Seed, Scheme: x.Request.Fields.Get("x-forwarded-proto")})
	reply := &filter.Reply{Status: rt.Redirect.Status, Details: "direct_response"}
	reply.Fields.Add("location", location)
	return reply
}

func (r *Router) upstream(d Downstream, x *filter.Context, c *Call) {
	name := c.Choice.Cluster
	cl := r.o.Clusters.Get(name)
	if cl == nil {
		d.Reply(&filter.Reply{Status: c.Route.Forward.NotFoundStatus, Flags: streaminfo.NoClusterFound, Details: "cluster_not_found"})
		return
	}
	x.Info.Cluster = name
	x.Info.ClusterMetadata = cl.Metadata()
	f := forwarding{r: r, d: d, x: x, info: x.Info, call: c, route: c.Route, forward: c.Route.Forward, cluster: cl}
	f.run()
}
