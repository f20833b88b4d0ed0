// Package guard keeps a fault of one exchange or connection from ending the process:
// all packages of the waypoint that run goroutines for others may import it.
package guard

import (
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
)

// Guard catches panics, counts and logs them. A nil one catches nothing.
type Guard struct {
	log    *slog.Logger
	caught atomic.Uint64
}

// New returns a guard that tells log.
func New(log *slog.Logger) *Guard { return &Guard{log: log} }

// Recover is deferred by a goroutine that works for one exchange or connection; what
// names the work. Who defers it earlier cleans up later.
func (g *Guard) Recover(what string) {
	if g == nil {
		return
	}
	if v := recover(); v != nil {
		g.caught.Add(1)
		g.log.Error("a fault of this program ended "+what+"; please report it", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	}
}

// Caught is how many panics there were.
func (g *Guard) Caught() uint64 {
	if g == nil {
		return 0
	}
	return g.caught.Load()
}
