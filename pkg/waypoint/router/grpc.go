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
	if f.MaxGRPCTimeout == nil {
		return global
	}
	t, ok := grpcTimeout(r.Fields.Get("grpc-timeout"))
	if ok {
		t = allowed(t, f.MaxGRPCTimeout, nil)
	} else { // who asks for none waits as long as the route lets it
		t = *f.MaxGRPCTimeout
	}
	if shift := f.GRPCOffset; ok && shift != nil && *shift < t {
		t -= *shift
	}
	if t > 0 {
		setGRPCTimeout(r, t)
	}
	return t
}

// allowed is what a client gets of the time that it asks for: most, unless that is 0, and
// shift less.
func allowed(t time.Duration, most, shift *time.Duration) time.Duration {
	if *most > 0 {
		t = min(t, *most)
	}
	if shift != nil {
		t = max(t-*shift, 0)
	}
	return t
}

// maxGRPCTimeout is the largest number that the field has room for.
const maxGRPCTimeout = 99_999_999

// setGRPCTimeout tells the server a time, in the finest unit from milliseconds on.
func setGRPCTimeout(r *message.Request, t time.Duration) {
	n, unit := t.Milliseconds(), "m"
	for _, coarser := range []struct {
		unit string
		of   int64
	}{{"S", 1000}, {"M", 60}, {"H", 60}} {
		if n <= maxGRPCTimeout {
			break
		}
		n, unit = n/coarser.of, coarser.unit
	}
	r.Fields.Set("grpc-timeout", strconv.FormatInt(min(n, maxGRPCTimeout), 10)+unit)
}
