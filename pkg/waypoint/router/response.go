package router

import (
	"errors"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// answered brings a response to the client, unless the policy repeats it.
func (f *forwarding) answered(s *cluster.Stream, response *message.Response) (again bool) {
	now := time.Now()
	f.info.UpstreamFirstByte = now.Sub(f.info.Start)
	status := response.Status
	if f.grpc {
		status = grpcOutcome(response)
	}
	f.host.Report(cluster.Responded, status)
	if f.policy != nil && byResponse(f.policy, response, f.grpc) && f.another(response) {
		f.detach(s)
		return true
	}
	f.cluster.CountStatus(response.Status)
	f.answeredWell = status < 500
	upgraded := response.Status == 101 || f.x.Request.Method == "CONNECT" && response.Status/100 == 2
	f.info.Response, f.info.ResponseCode, f.info.Details = response, response.Status, "via_upstream"
	f.headers(response, now)
	end := !s.HasBody() && !upgraded
	if idle := f.call.idleTimeout(); idle > 0 {
		_ = f.d.SetWriteDeadline(now.Add(idle)) // a client that is gone is met by writing
	}
	if err := f.d.Head(response, end); err != nil {
		f.detach(s)
		f.unsent(err)
		return false
	}
	f.mirrorLate()
	switch {
	case end:
		f.whole = true
		if err := f.d.Flush(); err != nil {
			f.unsent(err)
		}
	case upgraded:
		f.upgraded(s)
	default:
		f.relay(s, false)
	}
	f.info.UpstreamLastByte = time.Since(f.info.Start)
	if f.whole && !upgraded && f.requestComplete() {
		f.cluster.Answered(f.info.UpstreamLastByte - f.complete.Sub(f.info.Start))
	}
	f.detach(s)
	if f.upload != nil && !upgraded {
		if ended, _, _ := f.upload.state(); !ended {
			f.d.CloseAfter() // the rest of the request is not waited for
		}
	}
	return false
}

// upgraded carries the other protocol, for as long as the policies allow it.
func (f *forwarding) upgraded(s *cluster.Stream) {
	received := uint64(0)
	if f.upload != nil {
		received = f.upload.stop()
	}
	if authorize := f.r.o.Authorize; authorize != nil {
		caller, destination := f.info.Connection, f.host.Dial
		remove, err := f.r.o.Live.Add(func() error { return authorize(caller, destination, false) }, f.d.Reset)
		if err != nil {
			f.info.Details = "rbac_access_denied_matched_policy[" + err.Error() + "]"
			f.d.Reset()
			return
		}
		defer remove()
	}
	f.upload = &upload{d: f.d, received: received, guard: f.r.o.Guard}
	if err := f.upload.attach(s); err != nil {
		f.broken(err)
		return
	}
	f.relay(s, true)
}

// headers are what the router says in a response.
func (f *forwarding) headers(r *message.Response, now time.Time) {
	since := f.complete
	if since.IsZero() {
		since = f.info.Start
	}
	f.info.UpstreamServiceTime = max(now.Sub(since), 0)
	if !f.r.o.SuppressEnvoyHeaders && f.x.Request.Upgrade == "" {
		r.Fields.Set("x-envoy-upstream-service-time", strconv.FormatInt(f.info.UpstreamServiceTime.Milliseconds(), 10))
	}
	if f.route.AttemptCountInResponse() {
		r.Fields.Set("x-envoy-attempt-count", strconv.Itoa(f.attempts))
	}
	if f.call.Traced && f.route.Decorator != "" && !f.r.o.SuppressEnvoyHeaders {
		r.Fields.Set("x-envoy-decorator-operation", f.route.Decorator)
	}
	if f.call.Cookie != "" {
		r.Fields.Add("set-cookie", f.call.Cookie)
	}
	f.route.ResponseHeaders(r, f.info, f.call.Choice)
}

// relay carries a response's body, and after an upgrade all that comes.
func (f *forwarding) relay(s *cluster.Stream, upgraded bool) {
	var last time.Time // when something came; only known while there is an idle timeout
	idle, tryIdle := f.call.idleTimeout(), f.tryIdle()
	if idle > 0 || tryIdle > 0 {
		last = time.Now()
	}
	told := false // that it lasts
	// What never pauses is looked at in between, where its time is limited.
	limited := f.call.bounded || f.global > 0 && !upgraded
	var looked time.Time
	if limited {
		looked = time.Now()
		_ = f.d.SetWriteDeadline(f.writeLimit(upgraded, idle, looked))
	}
	for {
		if !s.Ready() {
			if err := f.d.Flush(); err != nil {
				f.unwritten(err, upgraded)
				return
			}
			now := time.Now()
			_ = s.SetReadDeadline(now.Add(look))
			if !told && (f.lasts || now.Sub(f.info.Start) > look) {
				told = true
				f.d.Lasts()
			}
		}
		b, err := s.Next()
		if len(b) > 0 {
			if idle > 0 || tryIdle > 0 {
				last = time.Now()
			}
			if idle > 0 {
				_ = f.d.SetWriteDeadline(f.writeLimit(upgraded, idle, last)) // as above
			}
			if _, werr := f.d.Write(b); werr != nil {
				f.unwritten(werr, upgraded)
				return
			}
		}
		switch {
		case err == nil:
			if limited && time.Since(looked) >= look {
				if looked = time.Now(); !f.goesOn(upgraded, idle, last) {
					return
				}
				_ = f.d.SetWriteDeadline(f.writeLimit(upgraded, idle, looked)) // the request may have ended
			}
		case errors.Is(err, io.EOF):
			f.whole = true
			if ferr := f.d.Finish(s.Trailers()); ferr != nil {
				f.unwritten(ferr, upgraded)
			}
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !f.goesOn(upgraded, idle, last) {
				return
			}
		default:
			f.broken(err)
			return
		}
	}
}

// limit is when a response has to be over, or zero. A route's timeout ends with an
// upgrade.
func (f *forwarding) limit(upgraded bool) time.Time {
	if upgraded {
		return f.longest()
	}
	return earliest(f.longest(), f.globalDeadline())
}

// writeLimit is when a client has to have taken what is written, or zero.
func (f *forwarding) writeLimit(upgraded bool, idle time.Duration, last time.Time) time.Time {
	if idle <= 0 {
		return f.limit(upgraded)
	}
	return earliest(last.Add(idle), f.limit(upgraded))
}

// unwritten ends an exchange whose response the client did not take, perhaps in time.
func (f *forwarding) unwritten(err error, upgraded bool) {
	if errors.Is(err, os.ErrDeadlineExceeded) && passed(f.limit(upgraded)) {
		f.goesOn(upgraded, 0, time.Time{}) // it does not, and says why
		return
	}
	f.unsent(err)
}

// unsent ends an exchange whose client is gone, or has not read for too long.
func (f *forwarding) unsent(err error) {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		f.gone()
		return
	}
	f.cluster.Count(cluster.RequestReset)
	f.info.Flags |= streaminfo.StreamIdleTimeout
	f.info.Details = IdleTimeoutDetails
	f.d.Reset()
}

// goesOn tells whether a body that pauses is waited for; if not, it ends the exchange.
func (f *forwarding) goesOn(upgraded bool, idle time.Duration, last time.Time) bool {
	var err error
	if upgraded {
		switch {
		case passed(f.longest()):
			err = errLongest
		case f.d.Gone():
			err = errGone
		}
	} else if err = f.interrupted(time.Time{}); err == nil && passed(f.tryIdleDeadline(last)) {
		err = errTryIdle
	}
	if f.upload != nil && f.upload.last().After(last) {
		last = f.upload.last()
	}
	switch {
	case errors.Is(err, errGlobal):
		f.cluster.Count(cluster.RequestTimeout)
		f.countReset(cluster.RequestReset)
		f.info.Flags |= streaminfo.UpstreamRequestTimeout
		f.info.Details = "response_timeout"
		f.d.Reset()
		return false
	case errors.Is(err, errTryIdle):
		f.host.Report(cluster.TimedOut, 0)
		f.cluster.Count(cluster.RequestPerTryIdleTimeout)
		f.countReset(cluster.RequestReset)
		f.info.Flags |= streaminfo.UpstreamRequestTimeout
		f.info.Details = tryIdleDetails
		f.d.Reset()
		return false
	case errors.Is(err, errLongest):
		f.countReset(cluster.RequestReset)
		f.info.Details = MaxDurationDetails
		f.d.Reset()
		return false
	case err != nil:
		f.gone()
		return false
	case idle > 0 && time.Since(last) > idle:
		f.countReset(cluster.RequestReset)
		f.info.Flags |= streaminfo.StreamIdleTimeout
		f.info.Details = IdleTimeoutDetails
		f.d.Reset()
		return false
	}
	return true
}

// broken ends an exchange whose upstream ended in the middle of the body.
func (f *forwarding) broken(err error) {
	failure := classify(err)
	f.host.Report(cluster.ConnectFailed, 0)
	if failure.reason != connectionTermination {
		f.countReset(cluster.ResponseReset)
	} else if f.info.UpstreamProtocol != message.HTTP2.String() {
		failure.reason = protocolError // a message of HTTP/1 that is not whole is none
	}
	f.info.Flags |= failure.flag()
	f.info.Details = "upstream_reset_after_response_started{" + failure.reason.details() + "}"
	f.d.Reset()
}
