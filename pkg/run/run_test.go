package run

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestActorsStopInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(slog.New(slog.DiscardHandler), time.Minute)
		var mu sync.Mutex
		var stopped []string
		for _, name := range []string{"first", "second", "third"} {
			g.Add(name, func(ctx context.Context) error {
				<-ctx.Done()
				mu.Lock()
				defer mu.Unlock()
				stopped = append(stopped, name)
				return nil
			})
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if want := []string{"third", "second", "first"}; !slices.Equal(stopped, want) {
			t.Errorf("stopped %v, want %v", stopped, want)
		}
	})
}

func TestOneEndStopsAll(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		err  error
		want string
	}{
		"with an error": {broken, "sick: broken"},
		"unasked":       {nil, "sick: ended without being asked"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewGroup(slog.New(slog.DiscardHandler), time.Minute)
			g.Add("healthy", func(ctx context.Context) error { <-ctx.Done(); return nil })
			g.Add("sick", func(context.Context) error { return c.err })
			if err := g.Run(t.Context()); err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestWhoDoesNotStopIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGroup(slog.New(slog.DiscardHandler), time.Second)
		release := make(chan struct{})
		g.Add("stuck", func(context.Context) error { <-release; return nil })
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := g.Run(ctx)
		if err == nil || !strings.Contains(err.Error(), "stuck did not stop within 1s") {
			t.Errorf("got %v", err)
		}
		close(release)
	})
}
