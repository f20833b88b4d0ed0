package router

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// unanswered ends an attempt that was sent and not answered.
func (f *forwarding) unanswered(err error) (again bool) {
	switch {
	case errors.Is(err, errGone):
		f.gone()
		return false
	case errors.Is(err, errGlobal):
		f.host.Report(cluster.TimedOut, 0)
		f.cluster.Count(cluster.RequestTimeout)
		f.countReset(cluster.RequestReset)
		f.reply(&filter.Reply{Status: 504, Body: "upstream request timeout", Flags: streaminfo.UpstreamRequestTimeout, Details: "response_timeout"})
		return false
	case errors.Is(err, errIdle):
		f.countReset(cluster.RequestReset)
		f.d.Reply(idled(f.requestComplete()))
		return false
	case errors.Is(err, errLongest):
		f.countReset(cluster.RequestReset)
		f.d.Reply(lasted(f.requestComplete()))
		return false
	case errors.Is(err, errRequest):
		f.countReset(cluster.RequestReset)
		f.d.Reply(&filter.Reply{Status: 408, Body: "request timeout", Details: RequestTimeoutDetails})
		return false
	case errors.Is(err, errTryTimeout):
		f.cluster.Count(cluster.RequestPerTryTimeout)
		f.countReset(cluster.RequestReset)
		return f.failed(failure{reason: tryTimeout, err: err}, true)
	case errors.Is(err, errTryIdle):
		f.cluster.Count(cluster.RequestPerTryIdleTimeout)
		f.countReset(cluster.RequestReset)
		return f.failed(failure{reason: tryIdle, err: err}, true)
	}
	failure := classify(err)
	if failure.reason == protocolError {
		f.countReset(cluster.RequestReset)
	} else if failure.reason != connectionTermination {
		f.countReset(cluster.ResponseReset)
	}
	return f.failed(failure, true)
}

// countReset counts a stream that ended before its time: of HTTP/2 alone, as HTTP/1 has
// connections instead.
func (f *forwarding) countReset(n cluster.Counter) {
	if f.info.UpstreamProtocol == message.HTTP2.String() {
		f.cluster.Count(n)
	}
}

// idled is the answer to a request in whose stream nothing has moved for too long.
// whole: the request had come in whole.
func idled(whole bool) *filter.Reply {
	r := &filter.Reply{Status: 408, Body: "stream timeout", Flags: streaminfo.StreamIdleTimeout, Details: IdleTimeoutDetails}
	if whole {
		r.Status = 504
	}
	return r
}

// lasted is the answer to a request whose stream may go on no longer.
func lasted(whole bool) *filter.Reply {
	deadline := 4
	r := &filter.Reply{Status: 408, Body: "downstream duration timeout", Details: MaxDurationDetails, GRPCStatus: &deadline}
	if whole {
		r.Status = 504
	}
	return r
}

// reply answers in the place of an upstream that was asked.
func (f *forwarding) reply(r *filter.Reply) {
	f.cluster.CountStatus(r.Status)
	f.d.Reply(r)
}

func (f *forwarding) gone() {
	f.countReset(cluster.RequestReset)
	f.info.Flags |= streaminfo.DownstreamConnectionTermination
	f.info.Details = "downstream_remote_disconnect"
	f.d.Reset()
}

// failed ends an attempt without a response: another one, or the answer to it.
func (f *forwarding) failed(failure failure, sent bool) (again bool) {
	switch failure.reason {
	case overflow:
	case tryTimeout, tryIdle:
		f.host.Report(cluster.TimedOut, 0)
	default:
		f.host.Report(cluster.ConnectFailed, 0)
	}
	f.info.TransportFailure = failure.transport
	if f.policy != nil && byFailure(f.policy, failure, sent) && f.another(nil) {
		return true
	}
	f.reply(failure.reply(f.attempts))
	return false
}
