package hcm

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// exchange is one request on its way. It is the router's [router.Downstream].
type exchange struct {
	codec.Exchange
	m     *Manager
	info  streaminfo.Info
	ctx   filter.Context
	call  router.Call
	table *route.Table

	grpc, headMethod bool
	began            bool // the response's head was given to the codec
	ended            bool
	passed           int // filters that saw the request
}

var _ router.Downstream = (*exchange)(nil)

var exchanges = sync.Pool{New: func() any {
	e := &exchange{}
	// Bound once, so that an exchange makes no closures.
	e.ctx.Config = e.config
	e.ctx.Gone = e.gone
	e.ctx.ClearRoute = e.clearRoute
	e.ctx.Overdue = e.overdue
	return e
}}

func (m *Manager) exchange(conn *streaminfo.Connection, x codec.Exchange) {
	m.total.Add(1)
	m.active.Add(1)
	defer m.active.Add(-1)
	e := exchanges.Get().(*exchange)
	e.start(m, conn, x)
	if e.guarded() {
		e.reset()
		exchanges.Put(e)
	}
}

// guarded serves and records; false is a fault of ours, after which nobody can say
// what still uses the exchange.
func (e *exchange) guarded() (well bool) {
	defer func() {
		e.ctx.End()
		if !well {
			e.forget()
			e.call.Close()
			e.Reset()
		}
	}()
	defer e.m.guard.Recover("an exchange")
	e.serve()
	e.finish()
	e.call.Close()
	return true
}

func (e *exchange) start(m *Manager, conn *streaminfo.Connection, x codec.Exchange) {
	e.m, e.Exchange = m, x
	e.info.Connection = conn
	if e.info.Start = x.Began(); e.info.Start.IsZero() {
		e.info.Start = time.Now()
	}
	e.info.Seed = rand.Uint64() //nolint:gosec // draws routes and endpoints, guards nothing
	e.info.Request = x.Request()
	e.ctx.Info, e.ctx.Request = &e.info, e.info.Request
	e.grpc = e.info.Request.GRPC()
	e.headMethod = e.info.Request.Method == "HEAD"
}

// reset makes e ready for the pool; what it pointed to is not kept alive.
func (e *exchange) reset() {
	x := &e.ctx
	*e = exchange{ctx: filter.Context{Config: x.Config, Gone: x.Gone, ClearRoute: x.ClearRoute, Overdue: x.Overdue}}
}

func (e *exchange) gone() bool { return e.Gone() }

// overdue is the answer where the exchange has taken as long as it may.
func (e *exchange) overdue() *filter.Reply { return e.call.Overdue(&e.info) }

// serve answers the request.
func (e *exchange) serve() {
	m, r := e.m, e.info.Request
	if m.refusal != "" {
		e.Reply(&filter.Reply{Status: 503, Body: "the configuration cannot be enforced: " + m.refusal, Details: "configuration_refused"})
		return
	}
	if reply := m.admit(e.Exchange, r, e.info.Local.Port()); reply != nil {
		e.Reply(reply)
		return
	}
	m.client(&e.info, r)
	if e.table = m.routes.Table(); e.table == nil {
		e.Reply(&filter.Reply{Status: 404, Flags: streaminfo.NoRouteFound, Details: "route_configuration_not_found"})
		return
	}
	e.find()
	if r.Upgrade != "" && e.call.Route != nil && !e.upgradeAllowed(strings.ToLower(r.Upgrade)) {
		e.Reply(&filter.Reply{Status: 403, Details: "upgrade_failed"})
		return
	}
	for i := range m.filters {
		e.passed = i + 1
		if e.disabled(&m.filters[i]) {
			continue
		}
		if reply := m.filters[i].filter.Request(&e.ctx); reply != nil {
			e.Reply(reply)
			return
		}
	}
	if e.call.Route == nil && !e.call.Found {
		e.find()
	}
	m.router.Forward(e, &e.ctx, &e.call)
}

// admit refuses what may not go further, and brings the head into order.
func (m *Manager) admit(x codec.Exchange, r *message.Request, port uint16) *filter.Reply {
	if r.Version == message.HTTP10 && !m.http10 {
		x.CloseAfter()
		return &filter.Reply{Status: 426, Body: "Upgrade Required", Details: "low_version"}
	}
	if r.Path != "" || r.Method != "CONNECT" {
		path, how := m.order(r.Path)
		switch how {
		case pathRefused:
			x.CloseAfter()
			return &filter.Reply{Status: 400, Details: "path_normalization_failed"}
		case pathRedirect:
			return &filter.Reply{Status: 307, Fields: message.Fields{{Name: "location", Value: path}}, Details: "path_normalization_failed"}
		case pathChanged:
			r.Path = path
		}
	}
	r.Authority = m.authority(r.Authority, port)
	return nil
}

// upgradeAllowed asks the route, and what it does not say the connection manager.
func (e *exchange) upgradeAllowed(name string) bool {
	if f := e.call.Route.Forward; f != nil {
		if allowed, ok := f.Upgrades[name]; ok {
			return allowed
		}
	}
	return e.m.upgrades[name]
}

// find chooses the route.
func (e *exchange) find() {
	e.call.Found = true
	e.call.Route = e.table.Find(&route.Input{Request: e.info.Request, Info: &e.info, Random: e.info.Seed, Scheme: e.info.Request.Fields.Get("x-forwarded-proto")})
	e.call.Choice = route.Choice{}
	if e.call.Route == nil {
		return
	}
	e.info.RouteName, e.info.VirtualHost, e.info.RouteMetadata = e.call.Route.Name, e.call.Route.VirtualHost(), e.call.Route.Metadata
	e.call.StreamIdle, e.call.MaxDuration, e.call.RequestTimeout, e.call.Traced = e.m.streamIdle, e.m.maxStreamDuration, e.m.requestTimeout, e.m.traced
	e.call.Choose(&e.info)
	if e.call.Route.Forward != nil {
		// Whoever is refused asked for this one all the same.
		e.info.Cluster, e.info.ClusterMetadata = e.m.router.Known(e.call.Choice.Cluster)
	}
}

// disabled tells whether a filter is not to run: the route says so, or else the filter.
func (e *exchange) disabled(f *named) bool {
	if e.call.Route == nil {
		return f.disabled
	}
	return e.call.Route.Disabled(f.name, e.call.Choice, f.disabled)
}

func (e *exchange) clearRoute() {
	e.call.Route, e.call.Choice, e.call.Found = nil, route.Choice{}, false
}

// config is a filter's configuration by the route, most specific first.
func (e *exchange) config(name string) any {
	if e.call.Route == nil && !e.call.Found && e.table != nil {
		e.find()
	}
	if e.call.Route == nil {
		return nil
	}
	return e.call.Route.Filter(name, e.call.Choice)
}

// Head implements [router.Downstream]: the response's head passes the filters and
// goes out.
func (e *exchange) Head(r *message.Response, end bool) error {
	e.complete(r)
	e.began, e.ended = true, end
	return e.Respond(r, end)
}

// complete puts into a response's head what is ours.
func (e *exchange) complete(r *message.Response) {
	m := e.m
	for i := range m.responders {
		f := &m.responders[i]
		if e.disabled(f) {
			continue
		}
		f.filter.(filter.ResponseFilter).Response(&e.ctx, r)
	}
	m.sign(r)
	if m.via != "" {
		appendVia(&r.Fields, m.via)
	}
	if m.returnRequestID {
		if id := e.info.Request.Fields.Get("x-request-id"); id != "" {
			r.Fields.Set("x-request-id", id)
		}
	}
	e.info.Response, e.info.ResponseCode = r, r.Status
}

// sign puts into a response's head who it is from, and when.
func (m *Manager) sign(r *message.Response) {
	switch m.serverHeader {
	case hcmv3.HttpConnectionManager_OVERWRITE:
		r.Fields.Set("server", m.serverName)
	case hcmv3.HttpConnectionManager_APPEND_IF_ABSENT:
		if _, has := r.Fields.Lookup("server"); !has {
			r.Fields.Add("server", m.serverName)
		}
	}
	if _, has := r.Fields.Lookup("date"); !has {
		r.Fields.Add("date", date(time.Now()))
	}
}

// Write counts the body.
func (e *exchange) Write(p []byte) (int, error) {
	n, err := e.Exchange.Write(p)
	e.info.BytesSent += uint64(n)
	if e.grpc {
		e.info.ResponseMessages.Feed(p[:n])
	}
	return n, err
}

// Next implements [codec.Reader].
func (e *exchange) Next() ([]byte, error) {
	b, err := e.Exchange.Next()
	if e.grpc {
		e.info.RequestMessages.Feed(b)
	}
	return b, err
}

// Lasts implements [router.Downstream].
func (e *exchange) Lasts() {
	if !e.grpc {
		return
	}
	e.info.Lasting = true
	for _, f := range e.m.followers {
		f.Lasts(&e.info)
	}
}

// forget has nobody look at the exchange any more.
func (e *exchange) forget() {
	if e.info.Lasting {
		for _, f := range e.m.followers {
			f.Forget(&e.info)
		}
	}
}

// Finish implements [codec.Writer].
func (e *exchange) Finish(trailers message.Fields) error {
	e.ended = true
	e.info.Trailers = trailers
	return e.Exchange.Finish(trailers)
}

// Reply implements [router.Downstream].
func (e *exchange) Reply(reply *filter.Reply) {
	e.info.Flags |= reply.Flags
	if reply.Details != "" {
		e.info.Details = reply.Details
	}
	if reply.Abort || e.began {
		e.Reset()
		return
	}
	e.info.LocalReplyBody = reply.Body
	r, body := local(reply, e.grpc, e.headMethod)
	e.info.Response = r
	if e.call.Route != nil && e.passed == len(e.m.filters) {
		if e.info.Attempts > 0 && e.call.Route.AttemptCountInResponse() {
			r.Fields.Set("x-envoy-attempt-count", strconv.Itoa(e.info.Attempts))
		}
		e.call.Route.ResponseHeaders(r, &e.info, e.call.Choice)
		if e.grpc { // a client of gRPC reads nothing else
			r.Fields.Set("content-type", "application/grpc")
		}
	}
	if idle := e.m.streamIdle; idle > 0 {
		_ = e.SetWriteDeadline(time.Now().Add(idle)) // a client that does not read is let go
	}
	if err := e.Head(r, body == ""); err != nil {
		return
	}
	if body == "" {
		_ = e.Flush() // a client that is gone is noticed at the end
		return
	}
	if _, err := e.Write([]byte(body)); err == nil {
		_ = e.Finish(nil)
	}
}

// finish makes the record.
func (e *exchange) finish() {
	info := &e.info
	info.Duration = time.Since(info.Start)
	if e.ended {
		e.m.times.Observe(info.Duration)
	}
	if !e.ended && info.Flags == 0 && info.Details == "" {
		info.Flags |= streaminfo.DownstreamConnectionTermination
		info.Details = "downstream_remote_disconnect"
	}
	e.m.record(info)
}
