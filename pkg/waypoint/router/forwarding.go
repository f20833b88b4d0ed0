package router

import (
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// look is how often one who waits for the upstream looks whether the client is
// still there.
const look = 100 * time.Millisecond

// forwarding is one exchange on its way to a cluster.
type forwarding struct {
	r       *Router
	d       Downstream
	x       *filter.Context
	info    *streaminfo.Info
	call    *Call
	route   *route.Route
	forward *route.Forward
	cluster *cluster.Cluster

	upload   *upload // nil: the request has no body
	complete time.Time
	global   time.Duration // of the whole; 0: none
	perTry   time.Duration
	policy   *route.Retry // or nil: nothing is tried again
	priority cluster.Priority
	retries  uint32 // that are left
	// answeredWell: the last attempt gave the client its response.
	answeredWell bool
	tried        []*cluster.Host
	attempts     int
	host         *cluster.Host
	grpc         bool
}

// run makes attempts until one is answered or none is left.
func (f *forwarding) run() {
	f.prepare()
	if f.upload != nil {
		defer f.uploaded()
	}
	for {
		f.attempts++
		f.info.Attempts = f.attempts
		if f.route.AttemptCountInRequest() {
			f.x.Request.Fields.Set("x-envoy-attempt-count", strconv.Itoa(f.attempts))
		}
		again := f.attempt()
		if f.attempts > 1 {
			f.cluster.RetryDone(f.priority, f.answeredWell)
		}
		if !again {
			return
		}
	}
}

// uploaded ends the request's body and notes what there was of it.
func (f *forwarding) uploaded() {
	f.info.BytesReceived = f.upload.stop()
	if ended, at, _ := f.upload.state(); ended {
		f.info.RequestReceived = max(at.Sub(f.info.Start), 1)
		f.info.RequestSent = f.info.RequestReceived
	}
}

// prepare brings the request into the form that goes upstream.
func (f *forwarding) prepare() {
	r := f.x.Request
	f.grpc = isGRPC(r.Fields)
	f.global, f.perTry = f.timeouts()
	if p := f.forward.Retry; p != nil && p.On != 0 && applies(p, r) {
		f.policy, f.retries = p, p.Retries
	}
	if f.forward.HighPriority {
		f.priority = cluster.HighPriority
	}
	in := route.Input{Request: r, Info: f.info, Random: f.info.Seed}
	f.route.RewriteRequest(&in, f.call.Choice, !f.r.o.SuppressEnvoyHeaders)
	if f.d.HasBody() {
		f.upload = &upload{d: f.d, keep: f.retries > 0 || len(f.forward.Mirrors) > 0}
	} else {
		f.complete, f.info.RequestReceived = f.info.Start, 1 // it was here with its head
	}
	if !f.r.o.SuppressEnvoyHeaders {
		f.expected(r)
	}
}

// timeouts are the route's, or those that a gRPC client asks for.
func (f *forwarding) timeouts() (global, perTry time.Duration) {
	global = f.forward.Timeout
	if f.grpc {
		global = grpcGlobal(f.forward, f.x.Request, global)
	}
	if p := f.forward.Retry; p != nil {
		perTry = p.PerTry
	}
	if global > 0 && perTry >= global {
		perTry = 0
	}
	return global, perTry
}

// expected tells the upstream how long it is waited for.
func (f *forwarding) expected(r *message.Request) {
	t := f.global
	if f.perTry > 0 {
		t = f.perTry
	}
	if t > 0 {
		r.Fields.Set("x-envoy-expected-rq-timeout-ms", strconv.FormatInt(t.Milliseconds(), 10))
	}
}

// attempt makes one and returns whether another is to be made.
func (f *forwarding) attempt() (again bool) {
	host, reply := f.choose()
	if reply != nil {
		f.d.Reply(reply)
		return false
	}
	f.host = host
	f.note(host)
	start := time.Now()
	if f.attempts == 1 {
		f.mirrorEarly()
	}
	s, err := f.cluster.Open(host, cluster.OpenOptions{
		Deadline: f.connectDeadline(start), Downstream: f.x.Request.Version, Priority: f.priority, Gone: f.x.Gone,
		Source: f.info.Remote, Destination: f.info.Local,
	})
	if err != nil {
		return f.failed(classify(err), false)
	}
	f.connected(s)
	defer func() {
		if f.call.answering != s {
			s.Close()
		}
	}()
	if err := f.send(s); err != nil {
		f.detach(s)
		return f.failed(classify(err), true)
	}
	response, err := f.await(s, start)
	if err != nil {
		f.detach(s)
		return f.unanswered(err)
	}
	if again = f.answered(s, response, start); !again {
		f.call.answering = s
	}
	return again
}

// choose picks an endpoint that the caller may reach.
func (f *forwarding) choose() (*cluster.Host, *filter.Reply) {
	host, err := f.cluster.Choose(cluster.Choice{
		Hash: f.call.hash, Hashed: f.call.hashed, Random: f.info.Seed,
		Tried: f.tried, Attempt: f.attempts - 1, Attempts: f.drawAgain(), PriorityEvery: f.avoidPriorities(), Destination: f.info.Local, Authority: f.x.Request.Authority,
	})
	if err != nil {
		return nil, &filter.Reply{Status: 503, Body: "no healthy upstream", Flags: streaminfo.NoHealthyUpstream, Details: "no_healthy_upstream"}
	}
	if f.r.o.Authorize != nil {
		if err := f.r.o.Authorize(f.info.Connection, host.Dial); err != nil {
			return nil, &filter.Reply{Status: 403, Body: "RBAC: access denied", Details: "rbac_access_denied_matched_policy[" + err.Error() + "]"}
		}
	}
	return host, nil
}

func (f *forwarding) note(h *cluster.Host) {
	f.info.UpstreamHost, f.info.UpstreamRemote, f.info.HostMetadata = h.Address, h.Dial, h.Metadata()
	f.info.UpstreamURISAN, f.info.UpstreamProtocol, f.info.TransportFailure = "", "", "" // of the try before
	f.info.Destination = nil
	if f.r.o.Workload != nil {
		f.info.Destination = f.r.o.Workload(h.Dial.Addr())
	}
	if f.info.Destination == nil {
		f.info.Destination = h.Workload()
	}
	if f.forward.AutoHostRewrite && h.Hostname != "" {
		f.forward.SetAuthority(f.x.Request, h.Hostname, !f.r.o.SuppressEnvoyHeaders)
	}
}

func (f *forwarding) connected(s *cluster.Stream) {
	f.info.UpstreamLocal, f.info.UpstreamURISAN = s.Connected.Local, s.Connected.PeerURISAN
	f.info.UpstreamProtocol = s.Connected.Version.String()
}

// connectDeadline is when an attempt that finds no connection has to end.
func (f *forwarding) connectDeadline(start time.Time) time.Time {
	return earliest(f.globalDeadline(), f.tryDeadline(start))
}

// globalDeadline counts from the request's end; zero while that has not come.
func (f *forwarding) globalDeadline() time.Time {
	if f.global <= 0 || !f.requestComplete() {
		return time.Time{}
	}
	return f.complete.Add(f.global)
}

func (f *forwarding) tryDeadline(start time.Time) time.Time {
	if f.perTry <= 0 || !f.requestComplete() {
		return time.Time{}
	}
	if f.complete.After(start) {
		start = f.complete
	}
	return start.Add(f.perTry)
}

func (f *forwarding) requestComplete() bool {
	if f.complete.IsZero() {
		if ended, at, _ := f.upload.state(); ended {
			f.complete = at
		}
	}
	return !f.complete.IsZero()
}

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func (f *forwarding) send(s *cluster.Stream) error {
	if f.upload == nil {
		err := s.Send(f.x.Request, true)
		f.info.RequestSent = max(time.Since(f.info.Start), 1)
		return err
	}
	if err := s.Send(f.x.Request, false); err != nil {
		return err
	}
	return f.upload.attach(s)
}

// detach ends an attempt's part in the upload; a write that waits is let go.
func (f *forwarding) detach(s *cluster.Stream) {
	if f.upload != nil {
		_ = s.SetWriteDeadline(time.Unix(1, 0))
		f.upload.detach()
	}
}

// What ends a wait beside the upstream's own end.
var (
	errGone       = errors.New("the client is gone")
	errGlobal     = errors.New("upstream request timeout")
	errTryTimeout = errors.New("per try timeout")
)

// await waits for a response's head. Informational ones go to the client.
func (f *forwarding) await(s *cluster.Stream, start time.Time) (*message.Response, error) {
	for {
		now := time.Now()
		limit := earliest(f.globalDeadline(), f.tryDeadline(start))
		_ = s.SetReadDeadline(earliest(limit, now.Add(look)))
		response, err := s.Response()
		switch {
		case err == nil && response.Status < 200 && response.Status != 101:
			if err := f.d.Inform(response); err != nil {
				return nil, errGone
			}
			continue
		case err == nil:
			return response, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return nil, err
		}
		if err := f.interrupted(start); err != nil {
			return nil, err
		}
	}
}

// interrupted is why a wait may not go on, or nil.
func (f *forwarding) interrupted(start time.Time) error {
	now := time.Now()
	if d := f.globalDeadline(); !d.IsZero() && !now.Before(d) {
		return errGlobal
	}
	if d := f.tryDeadline(start); !start.IsZero() && !d.IsZero() && !now.Before(d) {
		return errTryTimeout
	}
	if f.d.Gone() {
		return errGone
	}
	if f.upload != nil {
		if _, _, err := f.upload.state(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return errGone
		}
	}
	return nil
}

// unanswered ends an attempt that was sent and not answered.
func (f *forwarding) unanswered(err error) (again bool) {
	switch {
	case errors.Is(err, errGone):
		f.gone()
		return false
	case errors.Is(err, errGlobal):
		f.host.Report(cluster.TimedOut, 0)
		f.d.Reply(&filter.Reply{Status: 504, Body: "upstream request timeout", Flags: streaminfo.UpstreamRequestTimeout, Details: "response_timeout"})
		return false
	case errors.Is(err, errTryTimeout):
		return f.failed(failure{reason: tryTimeout, err: err}, true)
	}
	return f.failed(classify(err), true)
}

func (f *forwarding) gone() {
	f.info.Flags |= streaminfo.DownstreamConnectionTermination
	f.info.Details = "downstream_remote_disconnect"
	f.d.Reset()
}

// failed ends an attempt without a response: another one, or the answer to it.
func (f *forwarding) failed(failure failure, sent bool) (again bool) {
	switch failure.reason {
	case overflow:
	case connectFailure, connectTimeout:
		f.host.Report(cluster.ConnectFailed, 0)
	case tryTimeout:
		f.host.Report(cluster.TimedOut, 0)
	default:
		f.host.Report(cluster.ConnectFailed, 0)
	}
	f.info.TransportFailure = failure.transport
	if f.policy != nil && byFailure(f.policy, failure, sent) && f.another() {
		return true
	}
	f.d.Reply(failure.reply(f.attempts))
	return false
}

// another takes a retry, if one is left, and waits as the policy says.
func (f *forwarding) another() bool {
	if f.retries == 0 {
		if f.policy.Retries > 0 {
			f.info.Flags |= streaminfo.UpstreamRetryLimitExceeded
		}
		return false
	}
	if f.upload != nil && !f.upload.repeatable() || !f.cluster.Retry(f.priority) {
		return false
	}
	f.retries--
	f.tried = append(f.tried, f.host)
	if !f.rest(pause(f.policy, f.attempts)) {
		f.cluster.RetryDone(f.priority, false)
		return false
	}
	return true
}

// rest waits, and tells whether there is still someone to wait for.
func (f *forwarding) rest(d time.Duration) bool {
	end := time.Now().Add(d)
	if g := f.globalDeadline(); !g.IsZero() && g.Before(end) {
		end = g
	}
	timer := time.NewTimer(time.Until(end))
	defer timer.Stop()
	<-timer.C
	return !f.d.Gone()
}

// drawAgain is how often another host is drawn where one was tried already.
func (f *forwarding) drawAgain() int {
	if f.policy == nil || !f.policy.PreviousHosts || f.attempts == 1 {
		return 0
	}
	return f.policy.HostAttempts
}

func (f *forwarding) avoidPriorities() int {
	if f.policy == nil {
		return 0
	}
	return f.policy.PreviousPriorities
}
