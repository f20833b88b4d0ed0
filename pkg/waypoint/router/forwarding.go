package router

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
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
	whole        bool // the response came to its end
	lasts        bool // the client's side was told that it takes long
	tried        []*cluster.Host
	attempts     int
	host         *cluster.Host
	grpc         bool
	unserved     *failure // of the last connection that had ended
	removed      int      // hosts that went while the request waited for them
}

// run makes attempts until one is answered or none is left.
func (f *forwarding) run() {
	f.prepare()
	defer func() {
		if f.upload != nil {
			f.uploaded()
		}
	}()
	for {
		f.attempts++
		f.info.Attempts = f.attempts
		if f.route.AttemptCountInRequest() {
			f.x.Request.Fields.Set("x-envoy-attempt-count", strconv.Itoa(f.attempts))
		}
		if f.attempts > 1 && !f.r.o.SuppressEnvoyHeaders {
			f.expected(f.x.Request)
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
	f.grpc = r.GRPC()
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
		f.upload = &upload{d: f.d, kept: f.kept(), guard: f.r.o.Guard}
	} else {
		f.complete, f.info.RequestReceived = f.info.Start, 1 // it was here with its head
	}
	if !f.r.o.SuppressEnvoyHeaders {
		f.expected(r)
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
	for passed := 0; ; passed++ {
		again, unserved := f.try(host, start)
		if !unserved {
			return again
		}
		if passed == maxPassed || !f.repeatable() {
			return f.failed(*f.unserved, true)
		}
	}
}

// maxPassed is how many connections in a row may turn out to have ended.
const maxPassed = 3

// try sends the request to a host and brings back the answer. unserved: the connection
// was one that had ended or takes no more, so that the request has certainly not been
// worked on; that is no retry, and no policy has to allow it.
func (f *forwarding) try(host *cluster.Host, start time.Time) (again, unserved bool) {
	s, err := f.cluster.Open(host, cluster.OpenOptions{
		Deadline: f.connectDeadline(start), Downstream: f.x.Request.Version, Priority: f.priority, Gone: f.x.Gone,
		Source: f.info.Remote, Destination: f.info.Local, ServerName: hostOf(f.x.Request.Authority),
	})
	if err != nil {
		return f.unopened(err), false
	}
	f.connected(s)
	defer func() {
		if f.call.answering != s {
			s.Close()
		}
	}()
	var response *message.Response
	if err = f.send(s); err == nil || errors.Is(err, codec.ErrReset) {
		// One that takes no more may have answered, and its reader says why.
		var werr error
		if response, werr = f.await(s, start); werr == nil || err == nil || errors.Is(werr, codec.ErrRefused) {
			err = werr
		}
	}
	if err == nil {
		if again = f.answered(s, response); !again {
			f.call.answering = s
		}
		return again, false
	}
	f.detach(s)
	if errors.Is(err, errLost) { // the attempt's host is not to blame
		f.reply(failure{reason: connectionTermination, err: err}.reply(f.attempts))
		return false, false
	}
	if s.Reused && errors.Is(err, codec.ErrRefused) && f.unworked(s) {
		failure := classify(err)
		f.unserved = &failure
		return false, true
	}
	return f.unanswered(err), false
}

// unworked tells whether a request that was refused may be sent anew without being
// asked. HTTP/2 says that it was not worked on; with HTTP/1 a connection that ends
// just then leaves a doubt, so that the method has to be idempotent (RFC 9110 section
// 9.2.2).
func (f *forwarding) unworked(s *cluster.Stream) bool {
	if s.Connected.Version == message.HTTP2 {
		return true
	}
	switch f.x.Request.Method {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func (f *forwarding) repeatable() bool { return f.upload == nil || f.upload.repeatable() }

// hostOf is an authority without its port.
func hostOf(authority string) string {
	if i := strings.LastIndexByte(authority, ':'); i >= 0 && strings.IndexByte(authority[i:], ']') < 0 {
		return authority[:i]
	}
	return authority
}

// unopened ends an attempt that got no connection; nothing was sent.
func (f *forwarding) unopened(err error) (again bool) {
	switch {
	case errors.Is(err, cluster.ErrGone):
		f.gone()
		return false
	case errors.Is(err, cluster.ErrTimeout):
		switch {
		case passed(f.requestDeadline()):
			return f.unanswered(errRequest)
		case passed(f.globalDeadline()):
			return f.unanswered(errGlobal)
		}
		return f.unanswered(errTryTimeout)
	case errors.Is(err, cluster.ErrRemoved) && f.removed < maxPassed:
		f.removed++ // another one is chosen
		return true
	}
	return f.failed(classify(err), false)
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
		if err := f.r.o.Authorize(f.info.Connection, host.Dial, host.InMesh()); err != nil {
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

// another takes a retry, if one is left, and waits as the policy says, or as the response
// asks that the last attempt gave; nil is none.
func (f *forwarding) another(response *message.Response) bool {
	if f.retries == 0 {
		f.cluster.Count(cluster.RetryLimitExceeded)
		f.info.Flags |= streaminfo.UpstreamRetryLimitExceeded
		return false
	}
	if !f.repeatable() {
		return false
	}
	if !f.cluster.Retry(f.priority) {
		f.info.Flags |= streaminfo.UpstreamOverflow
		return false
	}
	f.retries--
	f.tried = append(f.tried, f.host)
	if !f.rest(f.backOff(response)) {
		f.cluster.RetryDone(f.priority, false)
		return false
	}
	return true
}

// backOff is how long to wait before the next attempt.
func (f *forwarding) backOff(response *message.Response) time.Duration {
	if response != nil {
		if d, ok := limited(f.policy, response, time.Now()); ok {
			f.cluster.Count(cluster.RetryBackOffRateLimited)
			return d
		}
	}
	f.cluster.Count(cluster.RetryBackOffExponential)
	return pause(f.policy, f.attempts)
}

// rest waits, and tells whether there is still someone to wait for.
func (f *forwarding) rest(d time.Duration) bool {
	end := earliest(time.Now().Add(d), earliest(f.globalDeadline(), f.requestDeadline()))
	for left := time.Until(end); left > 0; left = time.Until(end) {
		timer := time.NewTimer(min(left, look))
		<-timer.C
		if f.d.Gone() {
			return false
		}
	}
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
