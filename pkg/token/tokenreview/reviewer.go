package tokenreview

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// maxToken bounds what is sent to the API server, in bytes.
	maxToken = 16 << 10
	// longestReview bounds one question to the API server.
	longestReview = 10 * time.Second
	// provenFor and refusedFor are how long an answer holds. The first bounds how long
	// the token of a deleted pod is still taken; the second how soon a token that the
	// API server did not know yet is tried again.
	provenFor, refusedFor = time.Minute, 10 * time.Second
	// maxProven and maxRefused bound the memory of answers. They are apart so that wrong
	// tokens cannot push out right ones.
	maxProven, maxRefused = 20_000, 4_096
)

// Client asks the API server: the TokenReviews of a client-go AuthenticationV1 client,
// which should have no rate limit of its own.
type Client interface {
	Create(ctx context.Context, review *authenticationv1.TokenReview, o metav1.CreateOptions) (*authenticationv1.TokenReview, error)
}

// Options of a [Reviewer].
type Options struct {
	Client Client // must be non-nil
	// Origin is where a call comes from, as the peer's address without its port; "" is
	// one origin like any other. Must be non-nil.
	Origin   func(ctx context.Context) string
	Registry prometheus.Registerer // must be non-nil
	Logger   *slog.Logger          // must be non-nil
}

// Reviewer is a [token.Reviewer]. It may be used by many at once.
type Reviewer struct {
	o       Options
	metrics *metrics
	proven  *answers
	refused *answers
	limits  *limits
	asking  singleflight.Group // by the token's hash
}

var _ token.Reviewer = (*Reviewer)(nil)

// New registers its metrics.
func New(o Options) (*Reviewer, error) {
	if o.Client == nil || o.Origin == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("tokenreview: Client, Origin, Registry and Logger must be set")
	}
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	l, err := newLimits()
	if err != nil {
		return nil, err
	}
	return &Reviewer{o: o, metrics: m, proven: newAnswers(maxProven), refused: newAnswers(maxRefused), limits: l}, nil
}

// Review implements [token.Reviewer].
func (r *Reviewer) Review(ctx context.Context, bearer string) (token.Caller, error) {
	now := time.Now()
	key := sha256.Sum256([]byte(bearer))
	for _, known := range []*answers{r.proven, r.refused} {
		if a, ok := known.get(key, now); ok {
			r.metrics.reviews.WithLabelValues("remembered").Inc()
			return a.caller, a.err
		}
	}
	// The question goes on when the one who asked first has gone: others wait for it.
	result := r.asking.DoChan(string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestReview)
		defer cancel()
		return r.find(ctx, key, bearer)
	})
	select {
	case <-ctx.Done():
		return token.Caller{}, fmt.Errorf("%w: %w", token.ErrUnavailable, ctx.Err())
	case got := <-result:
		caller, _ := got.Val.(token.Caller)
		return caller, got.Err
	}
}

// find finds out about a token that is not known, and remembers it.
func (r *Reviewer) find(ctx context.Context, key [sha256.Size]byte, bearer string) (token.Caller, error) {
	origin := r.o.Origin(ctx)
	expires, err := plausible(bearer, time.Now())
	if err != nil {
		return r.refuse(origin, "implausible", err)
	}
	leave, err := r.limits.enter(ctx, origin)
	if err != nil {
		r.metrics.reviews.WithLabelValues("limited").Inc()
		return token.Caller{}, err
	}
	defer leave()
	caller, err := r.ask(ctx, bearer)
	now := time.Now()
	var unbound *token.UnboundError
	switch {
	case err == nil, errors.As(err, &unbound): // who it is of is proven in any case
		until := now.Add(provenFor)
		if expires.Before(until) {
			until = expires
		}
		r.proven.put(key, answer{caller: caller, err: err, until: until}, now)
		r.metrics.reviews.WithLabelValues("proven").Inc()
		return caller, err
	case errors.Is(err, token.ErrUnavailable):
		r.metrics.reviews.WithLabelValues("unavailable").Inc()
		return token.Caller{}, err
	}
	r.refused.put(key, answer{err: err, until: now.Add(refusedFor)}, now)
	return r.refuse(origin, "refused", err)
}

// refuse counts a wrong token against its origin, and says so where it is the first
// for a while.
func (r *Reviewer) refuse(origin, result string, err error) (token.Caller, error) {
	r.metrics.reviews.WithLabelValues(result).Inc()
	if r.limits.failed(origin) {
		r.o.Logger.Warn("token refused; further ones from there are slowed down", "from", origin, "err", err)
	}
	return token.Caller{}, err
}

// ask puts the question.
func (r *Reviewer) ask(ctx context.Context, bearer string) (token.Caller, error) {
	start := time.Now()
	review, err := r.o.Client.Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: bearer, Audiences: []string{token.Audience}},
	}, metav1.CreateOptions{})
	r.metrics.took.Observe(time.Since(start).Seconds())
	if err != nil {
		return token.Caller{}, fmt.Errorf("%w: TokenReview: %w", token.ErrUnavailable, err)
	}
	return callerOf(review.Status)
}
