package filter

import (
	"math"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// The fields by which requests ask for faults, where the configuration lets them.
const (
	delayField        = "x-envoy-fault-delay-request"
	delayShareField   = "x-envoy-fault-delay-request-percentage"
	abortField        = "x-envoy-fault-abort-request"
	abortGRPCField    = "x-envoy-fault-abort-grpc-request"
	abortPercentField = "x-envoy-fault-abort-request-percentage"
)

// faultDelay is how long requests are held back.
type faultDelay struct {
	fixed    time.Duration
	byHeader bool
	share    share
}

// of is how long a request is held back; 0 is not at all.
func (d *faultDelay) of(x *Context) time.Duration {
	share, delay := d.share, d.fixed
	if d.byHeader {
		ms, ok := number(x.Request, delayField)
		if !ok {
			return 0
		}
		share = share.asked(x.Request, delayShareField)
		delay = time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	if delay <= 0 || !share.draw(x.Info.Seed>>7) {
		return 0
	}
	return delay
}

// faultAbort is what requests are answered in the upstream's place.
type faultAbort struct {
	status   int  // or 0
	grpc     *int // or nil
	byHeader bool
	share    share
}

// of is the answer to a request, or nil. It is drawn apart from the delay: Envoy does so.
func (a *faultAbort) of(x *Context) *Reply {
	share, status, grpc := a.share, a.status, a.grpc
	if a.byHeader {
		share = share.asked(x.Request, abortPercentField)
		if n, ok := number(x.Request, abortField); ok && n >= 200 && n < 600 {
			status = int(n)
		} else if n, ok := number(x.Request, abortGRPCField); ok && n <= math.MaxInt32 {
			code := int(n)
			grpc = &code
		}
	}
	if status == 0 && grpc == nil || !share.draw(x.Info.Seed>>29) {
		return nil
	}
	if status == 0 {
		status = 200
	}
	return &Reply{Status: status, GRPCStatus: grpc, Body: "fault filter abort", Flags: streaminfo.FaultInjected, Details: "fault_filter_abort"}
}

// number is what a field of a request says, where that is one.
func number(r *message.Request, field string) (int64, bool) {
	v, ok := r.Fields.Lookup(field)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 63)
	return int64(n), err == nil //nolint:gosec // 63 bits
}
