package tokenreview

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

var agent = token.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-a", PodUID: "u1", Node: "n1"}

// proves is what an API server says of agent's token.
func proves() authenticationv1.TokenReviewStatus {
	return authenticationv1.TokenReviewStatus{
		Authenticated: true, Audiences: []string{token.Audience},
		User: authenticationv1.UserInfo{Username: "system:serviceaccount:istio-system:ztunnel", Extra: map[string]authenticationv1.ExtraValue{
			podName: {"ztunnel-a"}, podUID: {"u1"}, nodeName: {"n1"},
		}},
	}
}

// server answers by its function, and counts the questions.
type server struct {
	asked  atomic.Int64
	answer func(bearer string) (authenticationv1.TokenReviewStatus, error)
	// hold, or nil, keeps answers back until it closes.
	hold chan struct{}
}

func (s *server) Create(ctx context.Context, r *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	s.asked.Add(1)
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if len(r.Spec.Audiences) != 1 || r.Spec.Audiences[0] != token.Audience {
		return nil, fmt.Errorf("asked for audiences %q", r.Spec.Audiences)
	}
	status, err := s.answer(r.Spec.Token)
	return &authenticationv1.TokenReview{Status: status}, err
}

// bearer is a token's text as far as it is looked at here: nothing signs it.
func bearer(name string, expires time.Time, audience ...string) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	claims := map[string]any{"jti": name, "aud": audience}
	if !expires.IsZero() {
		claims["exp"] = expires.Unix()
	}
	return part(map[string]any{"alg": "RS256"}) + "." + part(claims) + "." + base64.RawURLEncoding.EncodeToString([]byte("signature"))
}

type originKey struct{}

func from(ctx context.Context, address string) context.Context {
	return context.WithValue(ctx, originKey{}, address)
}

func newReviewer(t *testing.T, s *server) (*Reviewer, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	r, err := New(Options{
		Client: s, Registry: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&said, nil)),
		Origin: func(ctx context.Context) string { a, _ := ctx.Value(originKey{}).(string); return a },
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, &said
}

func TestWhatAReviewProves(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*authenticationv1.TokenReviewStatus)
		want   string // in the error; empty: it proves agent
	}{
		"an agent's token":              {func(*authenticationv1.TokenReviewStatus) {}, ""},
		"one that is not authentic":     {func(s *authenticationv1.TokenReviewStatus) { s.Authenticated, s.Error = false, "signature is wrong" }, "signature is wrong"},
		"one for another audience":      {func(s *authenticationv1.TokenReviewStatus) { s.Audiences = []string{"https://kubernetes"} }, "not for istio-ca"},
		"an answer without audiences":   {func(s *authenticationv1.TokenReviewStatus) { s.Audiences = nil }, "not for istio-ca"},
		"a user's":                      {func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "admin" }, "is no service account"},
		"an account's without a name":   {func(s *authenticationv1.TokenReviewStatus) { s.User.Username = "system:serviceaccount:x:" }, "is no service account"},
		"one that is bound to no pod":   {func(s *authenticationv1.TokenReviewStatus) { delete(s.User.Extra, podUID) }, "bound to no pod"},
		"one of a pod that has no node": {func(s *authenticationv1.TokenReviewStatus) { delete(s.User.Extra, nodeName) }, "names no node"},
		"one of two pods":               {func(s *authenticationv1.TokenReviewStatus) { s.User.Extra[podName] = []string{"a", "b"} }, "bound to no pod"},
	} {
		t.Run(name, func(t *testing.T) {
			status := proves()
			c.change(&status)
			r, _ := newReviewer(t, &server{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return status, nil }})
			got, err := r.Review(t.Context(), bearer("a", time.Now().Add(time.Hour), token.Audience))
			switch {
			case c.want == "" && (err != nil || got != agent):
				t.Errorf("%+v, %v", got, err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || got != token.Caller{} || errors.Is(err, token.ErrUnavailable)):
				t.Errorf("%+v, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestWhatIsNotEvenAsked(t *testing.T) {
	hour := time.Now().Add(time.Hour)
	for name, text := range map[string]string{
		"nothing": "", "words": "let me in", "too long": strings.Repeat("x", maxToken+1),
		"for others": bearer("a", hour, "vault"), "ended": bearer("a", time.Now().Add(-time.Second), token.Audience),
		"endless": bearer("a", time.Time{}, token.Audience),
	} {
		s := &server{}
		r, _ := newReviewer(t, s)
		if _, err := r.Review(t.Context(), text); err == nil || errors.Is(err, token.ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
		if s.asked.Load() != 0 {
			t.Errorf("%s: the API server was asked", name)
		}
	}
}

func TestAnAnswerHoldsForAWhileAndNotPastTheTokensEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(string) (authenticationv1.TokenReviewStatus, error) { return proves(), nil }}
		r, _ := newReviewer(t, s)
		long, short := bearer("long", time.Now().Add(time.Hour), token.Audience), bearer("short", time.Now().Add(20*time.Second), token.Audience)
		review := func(text string, want int64, wantErr bool) {
			t.Helper()
			if _, err := r.Review(t.Context(), text); (err != nil) != wantErr {
				t.Error(err)
			}
			if got := s.asked.Load(); got != want {
				t.Errorf("asked %d times, want %d", got, want)
			}
		}
		review(long, 1, false)
		review(long, 1, false)
		review(short, 2, false)
		<-time.After(20 * time.Second)
		review(short, 2, true) // it has ended
		review(long, 2, false)
		<-time.After(provenFor)
		// By now its pod may be gone, and the API server says so.
		s.answer = func(string) (authenticationv1.TokenReviewStatus, error) {
			return authenticationv1.TokenReviewStatus{Error: "pod is deleted"}, nil
		}
		review(long, 3, true)
		review(long, 3, true)
		<-time.After(refusedFor)
		review(long, 4, true)
	})
}

func TestManyWithOneTokenAskOnce(t *testing.T) {
	s := &server{hold: make(chan struct{}), answer: func(string) (authenticationv1.TokenReviewStatus, error) { return proves(), nil }}
	r, _ := newReviewer(t, s)
	text := bearer("a", time.Now().Add(time.Hour), token.Audience)
	// The first gives up; the others get its answer.
	first, giveUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() { _, err := r.Review(first, text); gone <- err }()
	for s.asked.Load() == 0 {
		<-time.After(time.Millisecond)
	}
	giveUp()
	if err := <-gone; !errors.Is(err, token.ErrUnavailable) {
		t.Errorf("the one who gave up: %v", err)
	}
	var others sync.WaitGroup
	for range 100 {
		others.Go(func() {
			if c, err := r.Review(t.Context(), text); err != nil || c != agent {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
	close(s.hold)
	others.Wait()
	if got := s.asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
}

func TestAnAPIServerThatIsAwayRefusesNobodyForGood(t *testing.T) {
	away := true
	s := &server{answer: func(string) (authenticationv1.TokenReviewStatus, error) {
		if away {
			return authenticationv1.TokenReviewStatus{}, errors.New("connection refused")
		}
		return proves(), nil
	}}
	r, _ := newReviewer(t, s)
	text := bearer("a", time.Now().Add(time.Hour), token.Audience)
	for range 100 {
		if _, err := r.Review(t.Context(), text); !errors.Is(err, token.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	away = false
	if _, err := r.Review(t.Context(), text); err != nil {
		t.Errorf("held against the caller: %v", err)
	}
}

// A flood of tokens that look right from one origin reaches the API server in drops,
// and who comes from elsewhere does not notice.
func TestAFloodOfWrongTokensDoesNotReachTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := bearer("good", time.Now().Add(time.Hour), token.Audience)
		s := &server{answer: func(text string) (authenticationv1.TokenReviewStatus, error) {
			if text == good {
				return proves(), nil
			}
			return authenticationv1.TokenReviewStatus{Error: "signature is wrong"}, nil
		}}
		r, said := newReviewer(t, s)
		flood := from(t.Context(), "10.0.0.66")
		for i := range 5_000 {
			_, err := r.Review(flood, bearer(fmt.Sprint(i), time.Now().Add(time.Hour), token.Audience))
			if err == nil {
				t.Fatal("taken")
			}
			if i%500 == 0 {
				<-time.After(time.Second)
			}
		}
		if got := s.asked.Load(); got > 20 {
			t.Errorf("the API server was asked %d times", got)
		}
		if _, err := r.Review(from(t.Context(), "10.0.0.2"), good); err != nil {
			t.Errorf("another origin suffers: %v", err)
		}
		if lines := strings.Count(said.String(), "token refused"); lines != 1 || !strings.Contains(said.String(), "from=10.0.0.66") || strings.Contains(said.String(), "eyJ") {
			t.Errorf("%d lines:\n%s", lines, said)
		}
		if got := testutil.ToFloat64(r.metrics.reviews.WithLabelValues("limited")); got < 4_900 {
			t.Errorf("%v questions were held back", got)
		}
		// It is forgiven.
		<-time.After(wrongAtOnce*wrongEvery + time.Second)
		r.proven = newAnswers(maxProven)
		for i := range 200 {
			r.proven = newAnswers(maxProven)
			if _, err := r.Review(flood, good); err != nil {
				t.Fatalf("question %d: %v", i, err)
			}
		}
		if len(r.limits.origins) != 0 {
			t.Errorf("%d origins are remembered", len(r.limits.origins))
		}
	})
}

// The same from many origins at once: what is asked for them all is bounded.
func TestAFloodFromManyOrigins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{answer: func(string) (authenticationv1.TokenReviewStatus, error) {
			return authenticationv1.TokenReviewStatus{Error: "signature is wrong"}, nil
		}}
		r, _ := newReviewer(t, s)
		for i := range 20_000 {
			_, _ = r.Review(from(t.Context(), fmt.Sprint(i%500)), bearer(fmt.Sprint(i), time.Now().Add(time.Hour), token.Audience))
		}
		// One for each origin, and what the suspects have together.
		if got := s.asked.Load(); got > 500+2*suspectsAtOnce {
			t.Errorf("the API server was asked %d times", got)
		}
		for i := range maxOrigins + 100 {
			_, _ = r.Review(from(t.Context(), fmt.Sprint("o", i)), "x")
		}
		if got := len(r.limits.origins); got > maxOrigins {
			t.Errorf("%d origins are remembered", got)
		}
	})
}

func TestTheMemoryOfAnswersIsBounded(t *testing.T) {
	a, now := newAnswers(3), time.Now()
	for i := range 10 {
		a.put([32]byte{byte(i)}, answer{until: now.Add(time.Hour)}, now)
		_, _ = a.get([32]byte{0}, now) // in use
	}
	if _, ok := a.get([32]byte{0}, now); !ok || a.recent.Len() != 3 || len(a.byKey) != 3 {
		t.Errorf("%d answers, the one in use kept: %v", a.recent.Len(), ok)
	}
}
