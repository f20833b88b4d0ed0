// Package filter has the HTTP filters of the waypoint, as a table in one file. A
// filter is compiled once for a filter chain and serves its exchanges at the same
// time; what it keeps of one exchange lies in the exchange.
package filter

import (
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Context is an exchange as filters see it.
type Context struct {
	Info    *streaminfo.Info
	Request *message.Request
	// Config is the most specific per-route configuration of the filter, as its
	// Route function compiled it, or nil.
	Config func(filter string) any
	// Gone reports whether the client is gone; a filter that waits asks now and then.
	Gone func() bool
	// ClearRoute has the route chosen anew after a filter changed what it is chosen by.
	ClearRoute func()
	// Overdue is the answer to an exchange that has taken as long as it may, or nil; a
	// filter that waits asks now and then. It may be nil itself: there is no limit.
	Overdue func() *Reply

	atEnd []func()
}

// AtEnd has f called when the exchange is over.
func (x *Context) AtEnd(f func()) { x.atEnd = append(x.atEnd, f) }

// End calls what AtEnd was given. Whoever made the context calls it.
func (x *Context) End() {
	for _, f := range x.atEnd {
		f()
	}
	x.atEnd = nil
}

// Reply is an answer that the waypoint gives itself: Envoy's local reply.
type Reply struct {
	Status int
	Body   string
	// ContentType is of the body; "" is text/plain.
	ContentType string
	Fields      message.Fields
	Flags       streaminfo.Flags
	Details     string
	// GRPCStatus is what a gRPC client is told, if it is set; else it follows from
	// Status.
	GRPCStatus *int
	// Abort ends the exchange without an answer.
	Abort bool
}

// Filter looks at requests in the order of the chain, before they are routed on.
type Filter interface {
	// Request may change the request. A reply ends the exchange: later filters and
	// the router do not see it.
	Request(x *Context) *Reply
}

// ResponseFilter is a Filter that looks at the response's head as well, in the
// reverse order, local replies included.
type ResponseFilter interface {
	Filter
	Response(x *Context, r *message.Response)
}

// Counting is a Filter that has statistics.
type Counting interface {
	Filter
	// Stats are counters and gauges by Envoy's names, without the connection manager's
	// prefix.
	Stats() map[string]uint64
}
