package router

import (
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// grpcTimeout reads the Timeout of gRPC over HTTP/2: at most eight digits and a unit.
func grpcTimeout(v string) (time.Duration, bool) {
	if len(v) < 2 || len(v) > 9 {
		return 0, false
	}
	unit := map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond, 'u': time.Microsecond, 'n': time.Nanosecond}[v[len(v)-1]]
	n, err := strconv.ParseUint(v[:len(v)-1], 10, 32)
	if err != nil || unit == 0 {
		return 0, false
	}
	return time.Duration(n) * unit, true
}

// grpcOutcome is the HTTP status that a gRPC response without a body stands for, so
// that outlier detection sees its failures.
func grpcOutcome(r *message.Response) int {
	v, ok := r.Fields.Lookup("grpc-status")
	if !ok {
		return r.Status
	}
	switch v {
	case "0":
		return 200
	case "1":
		return 499
	case "3", "9", "11":
		return 400
	case "4":
		return 504
	case "5":
		return 404
	case "6", "10":
		return 409
	case "7":
		return 403
	case "8":
		return 429
	case "12":
		return 501
	case "14":
		return 503
	case "16":
		return 401
	}
	return 500
}

// grpcGlobal is the timeout of a request by what its client asks for, as far as the
// route lets it.
func grpcGlobal(f *route.Forward, r *message.Request, global time.Duration) time.Duration {
	limit, shift := f.GRPCHeaderMax, f.GRPCHeaderShift
	legacy := limit == nil
	if legacy {
		limit, shift = f.MaxGRPCTimeout, f.GRPCOffset
	}
	if limit == nil {
		return global
	}
	t, ok := grpcTimeout(r.Fields.Get("grpc-timeout"))
	switch {
	case !ok && legacy: // who asks for none waits as long as the route lets it
		t, shift = *limit, nil
	case !ok:
		return global
	}
	if *limit > 0 {
		t = min(t, *limit)
	}
	if shift != nil && *shift < t {
		t -= *shift
	}
	if t > 0 {
		r.Fields.Set("grpc-timeout", strconv.FormatInt(min(t.Milliseconds(), 99999999), 10)+"m")
	}
	return t
}
