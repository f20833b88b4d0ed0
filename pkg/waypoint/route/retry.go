package route

import (
	"errors"
	"fmt"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	canaryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/omit_canary_hosts/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// RetryOn is a set of the things after which a request is tried again.
type RetryOn uint32

// The things, in Envoy's words for x-envoy-retry-on and x-envoy-retry-grpc-on.
const (
	On5xx RetryOn = 1 << iota
	OnGatewayError
	OnReset
	OnResetBeforeRequest
	OnConnectFailure
	OnEnvoyRateLimited
	OnRetriable4xx
	OnRefusedStream
	OnRetriableStatusCodes
	OnRetriableHeaders
	OnHTTP3PostConnectFailure
	OnCancelled
	OnDeadlineExceeded
	OnInternal
	OnResourceExhausted
	OnUnavailable
)

var retryWords = map[string]RetryOn{
	"5xx": On5xx, "gateway-error": OnGatewayError, "reset": OnReset, "reset-before-request": OnResetBeforeRequest,
	"connect-failure": OnConnectFailure, "envoy-ratelimited": OnEnvoyRateLimited, "retriable-4xx": OnRetriable4xx,
	"refused-stream": OnRefusedStream, "retriable-status-codes": OnRetriableStatusCodes, "retriable-headers": OnRetriableHeaders,
	"http3-post-connect-failure": OnHTTP3PostConnectFailure, "cancelled": OnCancelled, "deadline-exceeded": OnDeadlineExceeded,
	"internal": OnInternal, "resource-exhausted": OnResourceExhausted, "unavailable": OnUnavailable,
}

// ParseRetryOn reads words separated by commas; all is false if one is not known.
func ParseRetryOn(words string) (on RetryOn, all bool) {
	all = true
	for word := range strings.SplitSeq(words, ",") {
		bit, ok := retryWords[strings.TrimSpace(word)]
		on, all = on|bit, all && ok
	}
	return on, all
}

// Retry is a RetryPolicy.
type Retry struct {
	On RetryOn
	// Retries is how many tries there are after the first.
	Retries uint32
	// PerTry and PerTryIdle bound one try; 0 is none.
	PerTry, PerTryIdle time.Duration
	// Base and Max bound the pause before the next try: it is drawn below Base times
	// 2^n-1 and Max.
	Base, Max time.Duration
	// Statuses go with OnRetriableStatusCodes.
	Statuses []int
	// Headers of a response go with OnRetriableHeaders: one must match.
	Headers []*matcher.Header
	// RequestHeaders of the request: one must match, if there are any.
	RequestHeaders []*matcher.Header
	// HostAttempts is how often another host is drawn when PreviousHosts rejects it.
	HostAttempts int
	// PreviousHosts avoids hosts that were tried.
	PreviousHosts bool
	// OmitCanary avoids hosts that are canaries.
	OmitCanary bool
	// PreviousPriorities avoids priorities after so many tries there; 0 does not.
	PreviousPriorities int
	// RateLimitedMax bounds what a response's ResetHeaders ask to wait: one that asks for
	// longer is not heeded.
	RateLimitedMax time.Duration
	ResetHeaders   []ResetHeader
}

// ResetHeader tells when a rate limit ends.
type ResetHeader struct {
	Name string
	// Unix: the value is a Unix time, not seconds from now.
	Unix bool
}

func newRetry(p *routev3.RetryPolicy) (*Retry, error) {
	if p == nil {
		return nil, nil
	}
	r, err := compileRetry(p)
	if err != nil {
		return nil, fmt.Errorf("retry_policy: %w", err)
	}
	return r, nil
}

func compileRetry(p *routev3.RetryPolicy) (*Retry, error) {
	r := &Retry{
		Retries: 1, HostAttempts: 1, Base: 25 * time.Millisecond,
		PerTry: p.GetPerTryTimeout().AsDuration(), PerTryIdle: p.GetPerTryIdleTimeout().AsDuration(),
	}
	if p.GetNumRetries() != nil {
		r.Retries = p.GetNumRetries().GetValue()
	}
	// A word that is not known has no effect, as with Envoy.
	r.On, _ = ParseRetryOn(p.GetRetryOn())
	if n := p.GetHostSelectionRetryMaxAttempts(); n > 0 {
		r.HostAttempts = int(min(n, 1000))
	}
	for _, code := range p.GetRetriableStatusCodes() {
		r.Statuses = append(r.Statuses, int(code))
	}
	if b := p.GetRetryBackOff(); b != nil {
		if b.GetBaseInterval() == nil {
			return nil, errors.New("retry_back_off.base_interval is missing")
		}
		r.Base = max(b.GetBaseInterval().AsDuration(), time.Millisecond)
	}
	r.Max = 10 * r.Base
	if m := p.GetRetryBackOff().GetMaxInterval(); m != nil {
		if r.Max = max(m.AsDuration(), time.Millisecond); r.Max < r.Base {
			return nil, errors.New("retry_back_off.max_interval is less than base_interval")
		}
	}
	if err := r.predicates(p); err != nil {
		return nil, err
	}
	var err error
	if r.Headers, err = matcher.NewHeaders(p.GetRetriableHeaders()); err != nil {
		return nil, fmt.Errorf("retriable_headers: %w", err)
	}
	if r.RequestHeaders, err = matcher.NewHeaders(p.GetRetriableRequestHeaders()); err != nil {
		return nil, fmt.Errorf("retriable_request_headers: %w", err)
	}
	if l := p.GetRateLimitedRetryBackOff(); l != nil {
		r.RateLimitedMax = 300 * time.Second
		if m := l.GetMaxInterval(); m != nil {
			r.RateLimitedMax = m.AsDuration()
		}
		for _, h := range l.GetResetHeaders() {
			r.ResetHeaders = append(r.ResetHeaders, ResetHeader{
				strings.ToLower(h.GetName()), h.GetFormat() == routev3.RetryPolicy_UNIX_TIMESTAMP,
			})
		}
	}
	return r, nil
}

func (r *Retry) predicates(p *routev3.RetryPolicy) error {
	for i, h := range p.GetRetryHostPredicate() {
		switch cfg := h.GetTypedConfig(); {
		case cfg.MessageIs((*previousv3.PreviousHostsPredicate)(nil)), cfg == nil && h.GetName() == "envoy.retry_host_predicates.previous_hosts":
			r.PreviousHosts = true
		case cfg.MessageIs((*canaryv3.OmitCanaryHostsPredicate)(nil)), cfg == nil && h.GetName() == "envoy.retry_host_predicates.omit_canary_hosts":
			r.OmitCanary = true
		default:
			return fmt.Errorf("retry_host_predicate[%d]: %q (%s) is not supported", i, h.GetName(), cfg.GetTypeUrl())
		}
	}
	if len(p.GetRetryOptionsPredicates()) > 0 {
		return errors.New("retry_options_predicates are not supported")
	}
	q := p.GetRetryPriority()
	if q == nil {
		return nil
	}
	var err error
	if r.PreviousPriorities, err = updateFrequency(q.GetTypedConfig()); err != nil {
		return fmt.Errorf("retry_priority %q: %w", q.GetName(), err)
	}
	return nil
}
