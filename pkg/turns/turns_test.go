package turns

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/condition"
)

func open(t *testing.T, o Options[string]) *Queue[string] {
	t.Helper()
	if o.Waiting == 0 {
		o.Waiting, o.Line = 100, 50
	}
	q, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func take(t *testing.T, q *Queue[string], key string) *Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	turn, err := q.Take(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// given is a turn that somebody waited for.
type given struct {
	key  string
	turn *Turn
}

// queue has some wait, one after the other; what they get is told in order.
func queue(t *testing.T, q *Queue[string], keys ...string) <-chan given {
	t.Helper()
	let := make(chan given, len(keys))
	for _, key := range keys {
		before := q.Waiting()
		go func() {
			if turn, err := q.Take(t.Context(), key); err == nil {
				let <- given{key, turn}
			}
		}()
		condition.Await(t, "it waits", func() bool { return q.Waiting() == before+1 })
	}
	return let
}

// empty wants nothing left of anybody.
func empty(t *testing.T, q *Queue[string]) {
	t.Helper()
	condition.Await(t, "nobody is left", func() bool {
		q.mu.Lock()
		defer q.mu.Unlock()
		return q.given == 0 && q.memory == 0 && q.waiting == 0 && len(q.lines) == 0 && q.first.Len() == 0 && q.others.Len() == 0
	})
}

func TestWhatANewQueueWants(t *testing.T) {
	for name, o := range map[string]Options[string]{
		"no turns": {Waiting: 1, Line: 1}, "nobody may wait": {Most: 1, Line: 1}, "no lines": {Most: 1, Waiting: 1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// In which order those who wait have the only turn that is left.
func TestOrder(t *testing.T) {
	first := func(key string) bool { return strings.HasPrefix(key, "!") }
	for name, c := range map[string]struct {
		come, want string
	}{
		"one of each key, in turn":       {"a a a a b", "a b a a a"},
		"those of one key, as they came": {"a a a", "a a a"},
		"many keys, each once a round":   {"a a b b c c", "a b c a b c"},
		"who comes first, in turn too":   {"a b !x !x !y", "!x !y !x a b"},
	} {
		t.Run(name, func(t *testing.T) {
			q := open(t, Options[string]{Most: 2, First: first})
			one, other := take(t, q, "before"), take(t, q, "another")
			let := queue(t, q, strings.Fields(c.come)...)
			one.End()
			one.End() // once is enough
			var order []string
			for range strings.Fields(c.come) {
				g := <-let
				order = append(order, g.key)
				g.turn.End()
			}
			if got := strings.Join(order, " "); got != c.want {
				t.Errorf("%s came as %s, want %s", c.come, got, c.want)
			}
			other.End()
			empty(t, q)
		})
	}
}

// Who asks for all turns has its share, and the rest are for others; its next waits for one of
// its own.
func TestShare(t *testing.T) {
	q := open(t, Options[string]{Most: 4, Share: 3})
	own := []*Turn{take(t, q, "stranger"), take(t, q, "stranger"), take(t, q, "stranger")}
	let := queue(t, q, "stranger", "stranger")
	api := take(t, q, "api") // although a stranger waits
	api.End()
	if q.Waiting() != 2 {
		t.Fatal("a stranger has more than its share")
	}
	for _, turn := range own {
		turn.End()
	}
	for range 2 {
		(<-let).turn.End()
	}
	empty(t, q)
}

// Ten thousand of one address, or of a few, keep another neither from a place nor from its turn,
// which comes after one of each of them; and nothing is left of them once they have gone.
func TestACrowdKeepsNobodyOut(t *testing.T) {
	const crowd = 10_000
	for name, addresses := range map[string]int{"one address": 1, "two that fill all places": 2, "many": 100} {
		t.Run(name, func(t *testing.T) {
			o := Options[string]{Most: 2, Share: 1, Waiting: 4096, Line: 2048}
			q := open(t, o)
			held := []*Turn{take(t, q, "holds"), take(t, q, "holds too")}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var refused, served atomic.Int64
			for i := range crowd {
				go func() {
					turn, err := q.Take(ctx, fmt.Sprint("crowd", i%addresses))
					switch {
					case err == nil:
						served.Add(1)
						turn.End()
					case errors.Is(err, ErrFull):
						refused.Add(1)
					}
				}()
			}
			places := min(o.Waiting, addresses*o.Line)
			condition.Await(t, "they fill the places", func() bool { return q.Waiting() == places && int(refused.Load()) == crowd-places })
			before := make(chan int64, 1)
			go func() {
				turn, err := q.Take(t.Context(), "single")
				if err != nil {
					t.Error(err)
				} else {
					before <- served.Load()
					turn.End()
				}
				close(before)
			}()
			condition.Await(t, "another has a place", func() bool {
				q.mu.Lock()
				defer q.mu.Unlock()
				return q.lines["single"] != nil
			})
			held[0].End()
			if n, ok := <-before; ok && n > int64(addresses)+10 {
				t.Errorf("it came after %d of %d addresses", n, addresses)
			}
			cancel()
			held[1].End()
			empty(t, q)
		})
	}
}

// A crowd is told of once when it comes and once when all are in; nobody is, who has a turn at
// once.
func TestCrowd(t *testing.T) {
	var told []bool
	q := open(t, Options[string]{Most: 2, Crowded: func(now bool) { told = append(told, now) }})
	one, two := take(t, q, "a"), take(t, q, "a")
	let := queue(t, q, "a", "b", "a")
	one.End()
	for range 3 {
		(<-let).turn.End()
	}
	two.End()
	empty(t, q)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v", told)
	}
}

// What those who have a turn may hold bounds how many they are, but one always may.
func TestMemoryBoundsTurns(t *testing.T) {
	size := int64(40)
	q := open(t, Options[string]{Most: 10, Memory: 100, Size: func() int64 { return size }})
	one, two := take(t, q, "a"), take(t, q, "a")
	let := queue(t, q, "a")
	if q.Given() != 2 {
		t.Fatal("a third has a turn")
	}
	one.End()
	(<-let).turn.End()
	two.End()
	size = 1000
	take(t, q, "a").End()
	empty(t, q)
}

// Who does not wait any more is not given a turn, and the queue's end sends all away.
func TestWaitEnds(t *testing.T) {
	q := open(t, Options[string]{Most: 1})
	first := take(t, q, "a")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := q.Take(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a turn that nobody had: %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err := q.Take(t.Context(), "b")
		ended <- err
	}()
	condition.Await(t, "one waits", func() bool { return q.Waiting() == 1 })
	q.Close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("a turn after the end: %v", err)
	}
	first.End()
	empty(t, q)
}

// One key has its line, another has its own, and who may have a turn at once needs no place.
func TestLinesAreBounded(t *testing.T) {
	q := open(t, Options[string]{Most: 3, Share: 1, Waiting: 2, Line: 1})
	held := []*Turn{take(t, q, "a"), take(t, q, "b")}
	let := queue(t, q, "a", "b")
	if _, err := q.Take(t.Context(), "a"); !errors.Is(err, ErrFull) {
		t.Errorf("a line is longer than it may be: %v", err)
	}
	take(t, q, "c").End()
	for _, turn := range held {
		turn.End()
	}
	for range 2 {
		(<-let).turn.End()
	}
	empty(t, q)
}
