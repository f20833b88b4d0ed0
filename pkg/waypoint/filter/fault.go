package filter

import (
	"errors"
	"fmt"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// fault delays or aborts a part of the requests (Envoy's HTTP fault filter).
type fault struct {
	name   string
	faults *faults
}

// faults is a compiled configuration.
type faults struct {
	headers []*matcher.Header
	cluster string
	delay   time.Duration
	delayed share
	abort   int // the status, or 0
	grpc    *int
	aborted share
}

// share is a fraction of all requests.
type share struct{ numerator, denominator uint64 }

func newShare(p *typev3.FractionalPercent) share {
	d := uint64(100)
	switch p.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		d = 10_000
	case typev3.FractionalPercent_MILLION:
		d = 1_000_000
	}
	return share{uint64(p.GetNumerator()), d}
}

func (s share) draw(random uint64) bool { return s.numerator > 0 && random%s.denominator < s.numerator }

func newFault(name string, config *anypb.Any) (Filter, error) {
	f, err := compileFault(config)
	if err != nil {
		return nil, err
	}
	return &fault{name, f}, nil
}

func routeFault(config *anypb.Any) (any, error) { return compileFault(config) }

func compileFault(config *anypb.Any) (*faults, error) {
	var c faultv3.HTTPFault
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	out := &faults{cluster: c.GetUpstreamCluster()}
	var err error
	if out.headers, err = matcher.NewHeaders(c.GetHeaders()); err != nil {
		return nil, fmt.Errorf("headers: %w", err)
	}
	switch {
	case len(c.GetDownstreamNodes()) > 0:
		return nil, errors.New("downstream_nodes is not supported")
	case c.GetResponseRateLimit() != nil:
		return nil, errors.New("response_rate_limit is not supported")
	}
	if d := c.GetDelay(); d != nil {
		if _, byHeader := d.GetFaultDelaySecifier().(*commonv3.FaultDelay_HeaderDelay_); byHeader {
			return nil, errors.New("delay.header_delay is not supported")
		}
		out.delay, out.delayed = d.GetFixedDelay().AsDuration(), newShare(d.GetPercentage())
	}
	if a := c.GetAbort(); a != nil {
		out.aborted = newShare(a.GetPercentage())
		switch e := a.GetErrorType().(type) {
		case *faultv3.FaultAbort_HttpStatus:
			out.abort = int(e.HttpStatus)
		case *faultv3.FaultAbort_GrpcStatus:
			code := int(e.GrpcStatus)
			out.abort, out.grpc = 200, &code
		default:
			return nil, errors.New("abort.header_abort is not supported")
		}
	}
	return out, nil
}

// Request implements [Filter].
func (f *fault) Request(x *Context) *Reply {
	c := f.faults
	if own, ok := x.Config(f.name).(*faults); ok {
		c = own
	}
	if c.delay == 0 && c.abort == 0 || c.cluster != "" && c.cluster != x.Info.Cluster {
		return nil
	}
	for _, h := range c.headers {
		if !h.Request(x.Request) {
			return nil
		}
	}
	// Delays and aborts are drawn apart: Envoy does.
	if c.delay > 0 && c.delayed.draw(x.Info.Seed>>7) {
		x.Info.Flags |= streaminfo.DelayInjected
		if !rest(x, c.delay) {
			return &Reply{Abort: true, Flags: streaminfo.DownstreamConnectionTermination, Details: "downstream_remote_disconnect"}
		}
	}
	if c.abort > 0 && c.aborted.draw(x.Info.Seed>>29) {
		return &Reply{Status: c.abort, GRPCStatus: c.grpc, Body: "fault filter abort", Flags: streaminfo.FaultInjected, Details: "fault_filter_abort"}
	}
	return nil
}

// look is how often one who waits looks whether the client is still there.
const look = 100 * time.Millisecond

// rest waits, unless the client goes away meanwhile.
func rest(x *Context, d time.Duration) bool {
	end := time.Now().Add(d)
	for left := d; left > 0; left = time.Until(end) {
		timer := time.NewTimer(min(left, look))
		<-timer.C
		if x.Gone() {
			return false
		}
	}
	return true
}
