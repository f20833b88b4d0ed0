package filter

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// fault delays or aborts a part of the requests (Envoy's HTTP fault filter).
type fault struct {
	name   string
	faults *faults

	active                    atomic.Int64 // exchanges that have one, until their end
	aborts, delays, overflows atomic.Uint64
}

var _ Counting = (*fault)(nil)

// faults is a compiled configuration.
type faults struct {
	headers []*matcher.Header
	nodes   []string // of whom alone, or nil
	cluster string
	most    int64 // exchanges that may have one at a time
	delay   faultDelay
	abort   faultAbort
}

func newFault(name string, config *anypb.Any) (Filter, error) {
	f, err := compileFault(config)
	if err != nil {
		return nil, err
	}
	return &fault{name: name, faults: f}, nil
}

func routeFault(config *anypb.Any) (any, error) { return compileFault(config) }

func compileFault(config *anypb.Any) (*faults, error) {
	var c faultv3.HTTPFault
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	out := &faults{cluster: c.GetUpstreamCluster(), nodes: c.GetDownstreamNodes(), most: math.MaxInt64}
	if m := c.GetMaxActiveFaults(); m != nil {
		out.most = int64(m.GetValue())
	}
	var err error
	if out.headers, err = matcher.NewHeaders(c.GetHeaders()); err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	if c.GetResponseRateLimit() != nil {
		return nil, errors.New("response_rate_limit is not supported")
	}
	if d := c.GetDelay(); d != nil {
		_, byHeader := d.GetFaultDelaySecifier().(*commonv3.FaultDelay_HeaderDelay_)
		out.delay = faultDelay{fixed: d.GetFixedDelay().AsDuration(), byHeader: byHeader, share: newShare(d.GetPercentage())}
	}
	if a := c.GetAbort(); a != nil {
		out.abort = faultAbort{share: newShare(a.GetPercentage())}
		switch e := a.GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			out.abort.status = int(e.HttpStatus)
		case *faultv3.FaultAbort_GrpcStatus:
			code := int(e.GrpcStatus)
			out.abort.grpc = &code
		case *faultv3.FaultAbort_HeaderAbort_:
			out.abort.byHeader = true
		default:
			return nil, errors.New("abort: neither http_status, grpc_status nor header_abort is set")
		}
	}
	return out, nil
}

// concern tells whether a request is one that faults are for.
func (c *faults) concern(x *Context) bool {
	if c.cluster != "" && c.cluster != x.Info.Cluster {
		return false
	}
	if node, ok := x.Request.Fields.Lookup("x-envoy-downstream-service-node"); c.nodes != nil && (!ok || !slices.Contains(c.nodes, node)) {
		return false
	}
	return !slices.ContainsFunc(c.headers, func(h *matcher.Header) bool { return !h.Request(x.Request) })
}

// Request implements [Filter].
func (f *fault) Request(x *Context) *Reply {
	c := f.faults
	if own, ok := x.Config(f.name).(*faults); ok {
		c = own
	}
	if !c.concern(x) {
		return nil
	}
	taken := false // a place of those that are active
	if d := c.delay.of(x); d > 0 && f.take(x, c, &taken) {
		f.delays.Add(1)
		x.Info.Flags |= streaminfo.DelayInjected
		if reply := rest(x, d); reply != nil {
			return reply
		}
	}
	reply := c.abort.of(x)
	if reply == nil || !f.take(x, c, &taken) {
		return nil
	}
	f.aborts.Add(1)
	return reply
}

// take takes a place for an exchange, once, until its end; false: none is left.
func (f *fault) take(x *Context, c *faults, taken *bool) bool {
	if *taken {
		return true
	}
	if f.active.Add(1) > c.most {
		f.active.Add(-1)
		f.overflows.Add(1)
		return false
	}
	*taken = true
	x.AtEnd(func() { f.active.Add(-1) })
	return true
}

// Stats implements [Counting].
func (f *fault) Stats() map[string]uint64 {
	return map[string]uint64{
		"fault.aborts_injected": f.aborts.Load(), "fault.delays_injected": f.delays.Load(), "fault.faults_overflow": f.overflows.Load(),
		"fault.active_faults": uint64(max(f.active.Load(), 0)),
	}
}

// look is how often one who waits looks whether the client is still there.
const look = 100 * time.Millisecond

// rest waits, unless the client goes away meanwhile or its time is up.
func rest(x *Context, d time.Duration) *Reply {
	end := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(end) {
		timer := time.NewTimer(min(left, look))
		<-timer.C
		if x.Gone() {
			return &Reply{Abort: true, Flags: streaminfo.DownstreamConnectionTermination, Details: "downstream_remote_disconnect"}
		}
		if x.Overdue != nil {
			if reply := x.Overdue(); reply != nil {
				return reply
			}
		}
	}
	return nil
}
