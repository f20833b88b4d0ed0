package tokenreview

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// reviewsPerSecond and reviewsAtOnce bound what the API server is asked: 5,000
	// agents that come back at once are through in about ten seconds.
	reviewsPerSecond, reviewsAtOnce = 500, 500
	// turnsOfOrigin bounds the questions of one origin at one time, and longestTurn
	// the wait for one.
	turnsOfOrigin, longestTurn = 16, 5 * time.Second
	// An origin that sends wrong tokens may ask about wrongAtOnce of them, and then
	// about one in every wrongEvery; all such origins together suspectsPerSecond.
	wrongAtOnce, wrongEvery           = 10, 2 * time.Second
	suspectsPerSecond, suspectsAtOnce = 50, 100
	// maxOrigins bounds the memory of who sent wrong tokens: it is emptied when full.
	maxOrigins = 10_000
	// warnEvery bounds what is logged of one origin.
	warnEvery = time.Minute
)

// limits keep the API server from those who try tokens.
type limits struct {
	all, suspects *rate.Limiter

	// mu guards below.
	mu      sync.Mutex
	origins map[string]*origin // those that ask now, and those that sent wrong tokens
}

type origin struct {
	turns chan struct{}

	// The limits' lock guards these.
	asking int
	wrong  *rate.Limiter // or nil: no token was wrong
	warned time.Time
}

// innocent: no token was wrong for long enough.
func (o *origin) innocent() bool { return o.wrong == nil || o.wrong.Tokens() >= wrongAtOnce }

func newLimits() *limits {
	return &limits{
		all: rate.NewLimiter(reviewsPerSecond, reviewsAtOnce), suspects: rate.NewLimiter(suspectsPerSecond, suspectsAtOnce),
		origins: map[string]*origin{},
	}
}

// enter waits for the turn of a question and returns what ends it, or says why it may
// not be put.
func (l *limits) enter(ctx context.Context, from string) (leave func(), err error) {
	l.mu.Lock()
	o := l.originLocked(from)
	o.asking++
	suspect := !o.innocent()
	slow := suspect && (o.wrong.Tokens() < 1 || !l.suspects.Allow())
	l.mu.Unlock()
	defer func() {
		if err != nil {
			l.leave(from, o)
		}
	}()
	if slow {
		return nil, fmt.Errorf("%w: too many wrong tokens come from %s; try again in a while", token.ErrUnavailable, from)
	}
	ctx, cancel := context.WithTimeout(ctx, longestTurn)
	defer cancel()
	select {
	case o.turns <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many questions from %s; try again", token.ErrUnavailable, from)
	}
	if l.all.Wait(ctx) != nil {
		<-o.turns
		return nil, fmt.Errorf("%w: many callers are proving themselves; try again", token.ErrUnavailable)
	}
	return func() {
		<-o.turns
		l.leave(from, o)
	}, nil
}

func (l *limits) leave(from string, o *origin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o.asking--; o.asking <= 0 && o.innocent() {
		delete(l.origins, from)
	}
}

// failed counts a wrong token; true where it should be spoken of.
func (l *limits) failed(from string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.originLocked(from)
	if o.wrong == nil {
		o.wrong = rate.NewLimiter(rate.Every(wrongEvery), wrongAtOnce)
	}
	o.wrong.Allow()
	if now := time.Now(); now.Sub(o.warned) > warnEvery {
		o.warned = now
		return true
	}
	return false
}

func (l *limits) originLocked(from string) *origin {
	o := l.origins[from]
	if o != nil {
		return o
	}
	if len(l.origins) >= maxOrigins {
		for key, old := range l.origins {
			if old.asking <= 0 {
				delete(l.origins, key)
			}
		}
	}
	o = &origin{turns: make(chan struct{}, turnsOfOrigin)}
	l.origins[from] = o
	return o
}
