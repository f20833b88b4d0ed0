package router

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Downstream is the client's side of an exchange.
type Downstream interface {
	codec.Reader
	codec.Writer
	HasBody() bool
	Inform(*message.Response) error
	// Head gives the response's head to the filters and the client. It is called
	// once; Reply does it as well.
	Head(r *message.Response, end bool) error
	// Reply answers in the upstream's place; after Head it resets the exchange.
	Reply(*filter.Reply)
	Gone() bool
	Reset()
	CloseAfter()
	// Lasts is told of an exchange that takes long: once that is so, and when its
	// response has begun.
	Lasts()
}

// Call is what was decided of an exchange before it is forwarded.
type Call struct {
	// Found: the route was looked for; Route is nil where there is none.
	Found bool
	Route *route.Route
	// Choice is the cluster that the route's weights gave.
	Choice route.Choice
	// Cookie is what the client gets to be recognised by (Set-Cookie), or "".
	Cookie string
	// StreamIdle is the connection manager's stream_idle_timeout; 0 is none.
	StreamIdle time.Duration
	// MaxDuration is the connection manager's max_stream_duration; 0 is none.
	MaxDuration time.Duration
	// RequestTimeout is the connection manager's request_timeout; 0 is none.
	RequestTimeout time.Duration
	// Traced: clients are told the operation of the route that served them.
	Traced bool
	hash   uint64
	hashed bool
	// duration is how long the exchange may last, if it is bounded.
	duration time.Duration
	bounded  bool
	// answering is the stream whose response the client got: its head's strings
	// stand in the connection's buffer until it is closed.
	answering *cluster.Stream
}

// Close ends the use of what the exchange's info points to. It is called when the
// exchange has been recorded.
func (c *Call) Close() {
	if c.answering != nil {
		c.answering.Close()
		c.answering = nil
	}
}

// Overdue is the answer to an exchange that has not been forwarded and has taken as
// long as it may, or nil.
func (c *Call) Overdue(info *streaminfo.Info) *filter.Reply {
	since := time.Since(info.Start)
	switch {
	case c.bounded && since >= c.duration:
		return lasted(true)
	case c.idleTimeout() > 0 && since >= c.idleTimeout():
		return idled(true)
	}
	return nil
}

// idleTimeout is the route's, or else the connection manager's; 0 is none.
func (c *Call) idleTimeout() time.Duration {
	if f := c.forward(); f != nil && f.IdleTimeout != nil {
		return *f.IdleTimeout
	}
	return c.StreamIdle
}

// bound decides how long the exchange may last: as long as a client asks for in
// grpc-timeout, where the route lets it; else the route's max_stream_duration, of which
// 0 is no bound; else the connection manager's. Servers of gRPC are told.
func (c *Call) bound(r *message.Request) {
	c.duration, c.bounded = c.MaxDuration, c.MaxDuration > 0
	f := c.forward()
	if f == nil || !f.ByDuration {
		return
	}
	if asked, ok := grpcTimeout(r.Fields.Get("grpc-timeout")); ok && f.GRPCHeaderMax != nil {
		c.duration, c.bounded = allowed(asked, f.GRPCHeaderMax, f.GRPCHeaderShift), true
	} else if f.MaxDuration != nil {
		c.duration, c.bounded = *f.MaxDuration, *f.MaxDuration > 0
	}
	if c.bounded && r.GRPC() {
		setGRPCTimeout(r, c.duration)
	}
}

func (c *Call) forward() *route.Forward {
	if c.Route == nil {
		return nil
	}
	return c.Route.Forward
}

// Choose draws the cluster and computes the hash by which an endpoint is chosen, and
// bounds how long the exchange may last.
func (c *Call) Choose(info *streaminfo.Info) {
	c.bound(info.Request)
	if c.Route.Forward == nil {
		return
	}
	in := route.Input{Request: info.Request, Info: info, Random: info.Seed}
	if c.Route.Forward.Hashes() {
		c.hash, c.hashed, c.Cookie = c.Route.Forward.Hash(&in)
	}
	c.Choice = c.Route.Forward.Pick(&in)
}
