package waypoint

import (
	"errors"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/chain"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/listener"
)

// What is removed stays for a while (Options.Linger). Node agents and waypoints are told
// of a change at about the same time, each by its own stream: an agent may go on sending
// to a waypoint that has already been told that the service is none of its own any more.

// resource is one by its type and name.
type resource struct{ typeURL, name string }

// removeLater removes a resource, unless it comes back before.
func (e *Engine) removeLater(typeURL, name string) {
	if e.o.Linger <= 0 {
		e.remove(typeURL, name)
		return
	}
	key := resource{typeURL, name}
	if e.leaving[key] != nil {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(e.o.Linger, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.leaving[key] != t {
			return
		}
		delete(e.leaving, key)
		e.remove(typeURL, name)
		e.want(typeURL)
	})
	e.leaving[key] = t
}

// stays keeps a resource that came back.
func (e *Engine) stays(typeURL, name string) {
	key := resource{typeURL, name}
	if t := e.leaving[key]; t != nil {
		t.Stop()
		delete(e.leaving, key)
	}
}

// leave lets go of a listener's chains that t has no more. For a while they serve what
// still comes, each connection with one exchange more; then they refuse it.
func (e *Engine) leave(l *listening, t *listener.Table, gone []*compiled) {
	before := l.table.Load()
	if e.o.Linger <= 0 || before == nil {
		for _, c := range gone {
			e.end(c)
		}
		return
	}
	// One table of before is enough: what left earlier is in the one that it left.
	previous := before.Previous.Load()
	if previous == nil && len(gone) > 0 {
		previous = before
	}
	t.Previous.Store(previous)
	if len(gone) == 0 {
		return
	}
	for _, c := range gone {
		c.slot.Drain().Begin()
	}
	time.AfterFunc(e.o.Linger, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if now := l.table.Load(); now != nil && now.Previous.Load() == previous {
			now.Previous.Store(nil)
		}
		for _, c := range gone {
			c.slot.Drain().CloseIdle()
			e.end(c)
		}
		e.forgetRoutes()
	})
}

// end has a chain refuse what it is asked for.
func (e *Engine) end(c *compiled) {
	c.release()
	c.slot.Swap(chain.Refused(c.config.GetName(), errors.New("it was removed"), nil, e.codecOptions()))
}
