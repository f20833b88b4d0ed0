// Package run runs a program: it starts its long-lived parts and stops them in reverse, sets
// the limits of the process, and ends it with the code of its error.
//
// Each part is a named actor in a [Group]. The first one that ends, or the end of
// the context, stops the others: last added, first stopped, each waited for before
// the next is told. Commands (cmd/) use it; it imports the standard library alone.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// Group is a list of actors. The zero value is not usable: see [NewGroup].
type Group struct {
	log     *slog.Logger
	timeout time.Duration
	actors  []actor
}

type actor struct {
	name string
	run  func(context.Context) error
}

// NewGroup returns an empty group. An actor that does not return within timeout
// of being stopped is left behind, and named in the error.
func NewGroup(log *slog.Logger, timeout time.Duration) *Group {
	return &Group{log: log, timeout: timeout}
}

// Add appends an actor. run returns when its context ends; it returns nil for
// an orderly stop.
func (g *Group) Add(name string, run func(context.Context) error) {
	g.actors = append(g.actors, actor{name, run})
}

// Run starts all actors in order and returns when all have ended: nil when ctx
// ended it, else the first actor's error, or that it ended without being asked.
func (g *Group) Run(ctx context.Context) error {
	type end struct {
		index int
		err   error
	}
	ends := make(chan end, len(g.actors))
	cancels := make([]context.CancelFunc, len(g.actors))
	finished := make([]chan struct{}, len(g.actors))
	for i, a := range g.actors {
		actorCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancels[i], finished[i] = cancel, make(chan struct{})
		go func() {
			defer close(finished[i])
			ends <- end{i, a.run(actorCtx)}
		}()
	}

	var first error
	select {
	case <-ctx.Done():
	case e := <-ends:
		name := g.actors[e.index].name
		if e.err == nil {
			e.err = errors.New("ended without being asked")
		}
		first = fmt.Errorf("%s: %w", name, e.err)
	}
	for i := len(g.actors) - 1; i >= 0; i-- {
		cancels[i]()
		select {
		case <-finished[i]:
			g.log.Debug("stopped", "part", g.actors[i].name)
		case <-time.After(g.timeout):
			first = errors.Join(first, fmt.Errorf("%s did not stop within %s", g.actors[i].name, g.timeout))
		}
	}
	return first
}
