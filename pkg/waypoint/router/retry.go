package router

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// grpcRetries are the statuses of gRPC that a policy may repeat.
var grpcRetries = map[string]route.RetryOn{
	"1": route.OnCancelled, "4": route.OnDeadlineExceeded, "8": route.OnResourceExhausted, "13": route.OnInternal, "14": route.OnUnavailable,
}

// applies tells whether a policy is for a request.
func applies(p *route.Retry, r *message.Request) bool {
	return len(p.RequestHeaders) == 0 || slices.ContainsFunc(p.RequestHeaders, func(h *matcher.Header) bool { return h.Request(r) })
}

// byResponse tells whether a response's head is one that the policy repeats.
func byResponse(p *route.Retry, r *message.Response, grpc bool) bool {
	if _, limited := r.Fields.Lookup("x-envoy-ratelimited"); limited {
		return p.On&route.OnEnvoyRateLimited != 0
	}
	switch {
	case p.On&route.On5xx != 0 && r.Status >= 500 && r.Status < 600,
		p.On&route.OnGatewayError != 0 && (r.Status == 502 || r.Status == 503 || r.Status == 504),
		p.On&route.OnRetriable4xx != 0 && r.Status == 409,
		p.On&route.OnRetriableStatusCodes != 0 && slices.Contains(p.Statuses, r.Status):
		return true
	}
	if p.On&route.OnRetriableHeaders != 0 && slices.ContainsFunc(p.Headers, func(h *matcher.Header) bool { return h.Response(r) }) {
		return true
	}
	return grpc && p.On&grpcRetries[r.Fields.Get("grpc-status")] != 0
}

// byFailure tells whether an attempt that failed with nothing answered is one that
// the policy repeats.
func byFailure(p *route.Retry, f failure, sent bool) bool {
	switch {
	case f.reason == overflow:
		return false
	case p.On&route.OnReset != 0, p.On&(route.On5xx|route.OnGatewayError) != 0:
		return true
	case p.On&route.OnResetBeforeRequest != 0 && !sent:
		return true
	case p.On&route.OnRefusedStream != 0 && f.reason == refusedStream:
		return true
	case p.On&route.OnConnectFailure != 0 && (f.reason == connectFailure || f.reason == connectTimeout):
		return true
	}
	return false
}

// pause is the wait before the nth retry, from 1: a random part of an interval that
// doubles, up to the policy's maximum.
func pause(p *route.Retry, n int) time.Duration {
	interval := min(p.Base<<min(n, 20)-p.Base, p.Max)
	if interval <= 0 {
		interval = p.Max
	}
	return time.Duration(rand.Int64N(int64(interval))) //nolint:gosec // spreads load, guards nothing
}

// limited is the wait that a response's server asks for with a field that the policy
// names, plus a random part of up to half of it; ok is false where it asks for none, or
// for longer than the policy lets it.
func limited(p *route.Retry, r *message.Response, now time.Time) (d time.Duration, ok bool) {
	for _, h := range p.ResetHeaders {
		n, err := strconv.ParseInt(r.Fields.Get(h.Name), 10, 64)
		if err != nil {
			continue
		}
		if h.Unix {
			n -= now.Unix()
		}
		if n < 0 || n > int64(p.RateLimitedMax/time.Second) {
			continue
		}
		if d = time.Duration(n) * time.Second; d == 0 {
			return 0, false
		}
		return d + time.Duration(rand.Int64N(int64(d/2))), true //nolint:gosec // spreads load, guards nothing
	}
	return 0, false
}
