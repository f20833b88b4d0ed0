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
	case c.maxDuration() > 0 && since >= c.maxDuration():
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

// maxDuration is the route's max_stream_duration, or else the connection manager's; 0 is
// none.
func (c *Call) maxDuration() time.Duration {
	if f := c.forward(); f != nil && f.MaxDuration != nil {
		return *f.MaxDuration
	}
	return c.MaxDuration
}

func (c *Call) forward() *route.Forward {
	if c.Route == nil {
		return nil
	}
	return c.Route.Forward
}

// Choose draws the cluster and computes the hash by which an endpoint is chosen.
func (c *Call) Choose(info *streaminfo.Info) {
	if c.Route.Forward == nil {
		return
	}
	in := route.Input{Request: info.Request, Info: info, Random: info.Seed}
	if c.Route.Forward.Hashes() {
		c.hash, c.hashed, c.Cookie = c.Route.Forward.Hash(&in)
	}
	c.Choice = c.Route.Forward.Pick(&in)
}
