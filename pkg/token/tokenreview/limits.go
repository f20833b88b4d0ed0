package tokenreview

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fairlead-mesh/fairlead/pkg/token"
	"github.com/fairlead-mesh/fairlead/pkg/turns"
)

const (
	// reviewsPerSecond and reviewsAtOnce bound what the API server is asked: 5,000
	// agents that come back at once are through in about ten seconds.
	reviewsPerSecond, reviewsAtOnce = 500, 500
	// questions bounds those that are under way, which the rate and a review's time do as
	// well; turnsOfOrigin those of one origin, and longestTurn the wait for one.
	questions, turnsOfOrigin, longestTurn = 8 << 10, 16, 5 * time.Second
	// maxWaiting and maxWaitingOfOrigin bound those that wait.
	maxWaiting, maxWaitingOfOrigin = 16 << 10, 4 << 10
	// An origin that sends wrong tokens may ask about wrongAtOnce of them, and then
	// about one in every wrongEvery; all such origins together suspectsPerSecond.
	wrongAtOnce, wrongEvery           = 10, 2 * time.Second
	suspectsPerSecond, suspectsAtOnce = 50, 100
	// maxOrigins bounds the memory of who sent wrong tokens: it is emptied when full.
	maxOrigins = 10_000
	// warnEvery bounds what is logged of one origin.
	warnEvery = time.Minute
)

// limits keep the API server from those who try tokens. Three things, each of which bounds what
// the others cannot: turns how many questions of an origin are under way, all how many begin in
// a second, and suspects how many of those whose tokens were wrong.
type limits struct {
	turns         *turns.Queue[string] // by origin
	all, suspects *rate.Limiter

	// mu guards below.
	mu      sync.Mutex
	origins map[string]*origin // those that sent wrong tokens
}

// origin is one that sent wrong tokens. The limits' lock guards it.
type origin struct {
	wrong  *rate.Limiter
	warned time.Time
}

// innocent: no token was wrong for long enough.
func (o *origin) innocent() bool { return o.wrong.Tokens() >= wrongAtOnce }

func newLimits() (*limits, error) {
	queue, err := turns.New(turns.Options[string]{Most: questions, Share: turnsOfOrigin, Waiting: maxWaiting, Line: maxWaitingOfOrigin})
	if err != nil {
		return nil, err
	}
	return &limits{
		turns: queue,
		all:   rate.NewLimiter(reviewsPerSecond, reviewsAtOnce), suspects: rate.NewLimiter(suspectsPerSecond, suspectsAtOnce),
		origins: map[string]*origin{},
	}, nil
}

// enter waits for the turn of a question and returns what ends it, or says why it may
// not be put.
func (l *limits) enter(ctx context.Context, from string) (leave func(), err error) {
	if l.slow(from) {
		return nil, fmt.Errorf("%w: too many wrong tokens come from %s; try again in a while", token.ErrUnavailable, from)
	}
	ctx, cancel := context.WithTimeout(ctx, longestTurn)
	defer cancel()
	turn, err := l.turns.Take(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("%w: too many questions from %s; try again", token.ErrUnavailable, from)
	}
	if l.all.Wait(ctx) != nil {
		turn.End()
		return nil, fmt.Errorf("%w: many callers are proving themselves; try again", token.ErrUnavailable)
	}
	return turn.End, nil
}

// slow tells whether an origin has to wait since its tokens were wrong, and forgets those that
// were long ago.
func (l *limits) slow(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.origins[from]
	switch {
	case o == nil:
		return false
	case o.innocent():
		delete(l.origins, from)
		return false
	}
	return o.wrong.Tokens() < 1 || !l.suspects.Allow()
}

// failed counts a wrong token; true where it should be spoken of.
func (l *limits) failed(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.origins[from]
	if o == nil {
		if len(l.origins) >= maxOrigins {
			clear(l.origins)
		}
		o = &origin{wrong: rate.NewLimiter(rate.Every(wrongEvery), wrongAtOnce)}
		l.origins[from] = o
	}
	o.wrong.Allow()
	if now := time.Now(); now.Sub(o.warned) > warnEvery {
		o.warned = now
		return true
	}
	return false
}
