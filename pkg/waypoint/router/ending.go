package router

import (
	"errors"

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
		f.cluster.Count(cluster.RequestReset)
		f.reply(&filter.Reply{Status: 504, Body: "upstream request timeout", Flags: streaminfo.UpstreamRequestTimeout, Details: "response_timeout"})
		return false
	case errors.Is(err, errIdle):
		f.cluster.Count(cluster.RequestReset)
		f.d.Reply(f.idled())
		return false
	case errors.Is(err, errTryTimeout):
		f.cluster.Count(cluster.RequestPerTryTimeout)
		f.cluster.Count(cluster.RequestReset)
		return f.failed(failure{reason: tryTimeout, err: err}, true)
	}
	failure := classify(err)
	if failure.reason == protocolError {
		f.cluster.Count(cluster.RequestReset)
	} else {
		f.cluster.Count(cluster.ResponseReset)
	}
	return f.failed(failure, true)
}

// idled is the answer to a request in whose stream nothing has moved for too long.
func (f *forwarding) idled() *filter.Reply {
	r := &filter.Reply{Status: 408, Body: "stream timeout", Flags: streaminfo.StreamIdleTimeout, Details: "stream_idle_timeout"}
	if f.requestComplete() {
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
	f.cluster.Count(cluster.RequestReset)
	f.info.Flags |= streaminfo.DownstreamConnectionTermination
	f.info.Details = "downstream_remote_disconnect"
	f.d.Reset()
}

// failed ends an attempt without a response: another one, or the answer to it.
func (f *forwarding) failed(failure failure, sent bool) (again bool) {
	switch failure.reason {
	case overflow:
	case tryTimeout:
		f.host.Report(cluster.TimedOut, 0)
	default:
		f.host.Report(cluster.ConnectFailed, 0)
	}
	f.info.TransportFailure = failure.transport
	if f.policy != nil && byFailure(f.policy, failure, sent) && f.another() {
		return true
	}
	f.reply(failure.reply(f.attempts))
	return false
}
