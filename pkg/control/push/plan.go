package push

import (
	"slices"
	"time"
)

const (
	// interval is the least time between two pushes of one type to one node's agent: a
	// lone change goes at once, a storm of them 17 times a second. A waypoint is
	// told of its own configuration as soon as it has answered: there are few, and one
	// that serves by what is no longer true is worse than one that is told often.
	interval = 60 * time.Millisecond
	// grace is how long a new client's workloads wait for it to ask for policies,
	// which it should have first.
	grace = 500 * time.Millisecond
	// warming is how long listeners and routes wait for the client to have taken
	// the clusters and endpoints that they may name.
	warming = time.Second
	// maxLate bounds the removals that are kept back; more are sent at once.
	maxLate = 1 << 12
)

// chain is what a client gets of one log: types that name each other. What is
// new is sent in their order, what is gone in the reverse, after all that may
// have named it.
type chain struct {
	log   *Log
	types []string
	// subs are by type; nil is not asked for.
	subs []*subscription
	// awaited is how many of the first types must have been answered, not only
	// sent, before those that follow: a cluster takes no requests before it has its
	// endpoints, so a route to it must not come earlier.
	awaited int
	// greeted is true for a chain whose first type is waited for: workloads are
	// not sent to a client that is about to ask for policies.
	greeted bool
	// interval is the least time between two pushes of one type, or zero.
	interval time.Duration
}

func meshChain(l *Log) *chain {
	return &chain{log: l, types: meshTypes, subs: make([]*subscription, len(meshTypes)), greeted: true, interval: interval}
}

func envoyChain(l *Log) *chain {
	return &chain{log: l, types: envoyTypes, subs: make([]*subscription, len(envoyTypes)), awaited: 2}
}

// step is one response to send.
type step struct {
	sub *subscription
	msg *response
}

// plan decides what to send, from one moment of the log. A type waits for its
// last response's ACK; meanwhile what it misses is the log's to remember, and
// the types after it wait too. wait is when to look again, or zero for "when
// something happens".
func (c *chain) plan(now, opened time.Time) (steps []step, wait time.Duration, err error) {
	l := c.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	var types [4]bool // of the longer chain
	unanswered := types[:len(c.subs)]
	behind := len(c.subs) // the first type that has something left to send
	asking := false       // something is sent whose answer is awaited
	for i, s := range c.subs {
		d, err := s.dueLocked(l, now)
		if err != nil {
			return nil, 0, err
		}
		if s == nil {
			continue
		}
		unanswered[i] = len(s.waiting) > 0
		wait = soonest(wait, d.retry)
		if len(s.apart) > 0 && unanswered[i] {
			behind = min(behind, i)
			continue
		}
		if one := s.nextApartLocked(l); one != nil {
			behind = min(behind, i)
			steps = append(steps, step{s, &response{diff: one, log: l}})
			continue
		}
		diff := d.diff.additions
		if i == len(c.subs)-1 {
			diff = d.diff // nothing comes after that may name it
		}
		switch early := c.interval - now.Sub(s.pushed); {
		case !d.owed && diff.empty():
			s.keepBack(d.diff, diff, l.seq)
		case behind < i, unanswered[i]:
			behind = min(behind, i)
		case i >= c.awaited && asking:
			behind = i // the answer brings us here again
		case c.untaken(i, now) > 0:
			behind, wait = i, soonest(wait, c.untaken(i, now))
		case c.greeted && i > 0 && c.subs[0] == nil && s.first && opened.Add(grace).After(now):
			behind, wait = i, soonest(wait, opened.Add(grace).Sub(now))
		case !d.owed && early > 0:
			behind, wait = i, soonest(wait, early)
		default:
			if !d.owed {
				s.pushed = now
			}
			s.keepBack(d.diff, diff, l.seq)
			steps = append(steps, step{s, &response{diff: diff, log: l}})
			asking = asking || i < c.awaited
			c.warm(s, diff)
		}
	}
	for i, s := range slices.Backward(c.subs) {
		if s == nil || len(s.late) == 0 || unanswered[i] || behind <= i || behind < len(c.subs) && len(s.late) <= maxLate {
			continue
		}
		sent := slices.ContainsFunc(steps, func(o step) bool { return o.sub == s })
		if early := c.interval - now.Sub(s.pushed); early > 0 && len(steps) == 0 {
			wait = soonest(wait, early)
			continue
		} else if !sent {
			s.pushed = now
		}
		if gone := s.stillGoneLocked(l); len(gone) > 0 {
			steps = append(steps, step{s, &response{diff: newDifference(nil, gone), log: l}})
		}
		s.late = nil
	}
	return steps, wait, nil
}

// warm has the endpoints of clusters sent again behind these. An Envoy that is sent a
// cluster which it has makes it anew, waits for its endpoints before it acknowledges, and
// does not ask for what it has asked for already.
func (c *chain) warm(clusters *subscription, d *difference) {
	if clusters.typeURL != ClusterType {
		return
	}
	for _, s := range c.subs {
		if s == nil || s.typeURL != EndpointType || s.first {
			continue
		}
		for _, r := range d.resources {
			if !s.names[r.name] {
				continue
			}
			if s.asked == nil {
				s.asked = map[string]bool{}
			}
			s.asked[r.name] = true
		}
	}
}

// untaken is how long type i still waits for answers of those that it may name.
func (c *chain) untaken(i int, now time.Time) (wait time.Duration) {
	if i < c.awaited {
		return 0
	}
	for _, s := range c.subs[:c.awaited] {
		if s != nil && len(s.waiting) > 0 {
			wait = max(wait, warming-now.Sub(s.waiting[0].at))
		}
	}
	return wait
}

// keepBack takes note of a difference of which only a part is sent now.
func (s *subscription) keepBack(d, part *difference, upTo uint64) {
	switch {
	case len(d.removed) == 0 || len(part.removed) > 0:
	case len(s.late) == 0:
		s.late = slices.Clip(d.removed) // shared with other clients
	default:
		s.late = append(s.late, d.removed...)
	}
	s.told(upTo)
}

func soonest(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}
