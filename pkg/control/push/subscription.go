package push

import (
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// A refused response is sent again after firstRetry, then ever later: what
	// kept the client from taking it may have been of the moment.
	firstRetry, lastRetry = time.Second, 5 * time.Minute
	// maxReason bounds what is kept of a client's words.
	maxReason = 4 << 10
)

// subscription is a client's state of one type. The client's lock guards it.
type subscription struct {
	typeURL string
	// names is nil for everything; nameBytes is how long they are together.
	names     map[string]bool
	nameBytes int
	// cursor is the last change that the client was told of.
	cursor uint64

	// first is true until the first answer; held is what the client said that
	// it holds.
	first bool
	held  holding
	// asked are names to be answered, whether they exist or not.
	asked map[string]bool
	// late are resources that are gone, kept back until those that no longer name
	// them were sent.
	late []string
	// pushed is when something was last sent that nobody had asked for.
	pushed time.Time

	// waiting are the responses without an ACK, at most two.
	waiting []*sent
	acked   *sent // or nil

	// apart are resources to be sent again at once, each in a response of its own.
	apart map[string]bool

	// refused are the names that the client refused and has not taken since.
	refused  map[string]bool
	reason   string
	attempts int
	retry    time.Time
}

// sent is a response.
type sent struct {
	nonce string
	diff  *difference
	upTo  uint64
	at    time.Time
}

// answered takes an ACK, or with a reason a NACK, and returns the response that
// it is of, or nil if it is of none that waits.
func (s *subscription) answered(nonce, reason string, now time.Time) *sent {
	i := slices.IndexFunc(s.waiting, func(w *sent) bool { return w.nonce == nonce })
	if i < 0 {
		return nil
	}
	w := s.waiting[i]
	s.waiting = slices.Delete(s.waiting, 0, i+1) // an answer stands for those before it
	s.acked = &sent{nonce: w.nonce, upTo: w.upTo, at: now}
	if reason != "" {
		s.refuse(w.diff, reason, now)
		return w
	}
	for _, r := range w.diff.resources {
		delete(s.refused, r.name)
	}
	for _, name := range w.diff.removed {
		delete(s.refused, name)
	}
	if len(s.refused) == 0 {
		s.refused, s.reason, s.attempts = nil, "", 0
	}
	return w
}

// settled tells whether a subscription was told of everything up to a change, and has
// nothing else to be told.
func (s *subscription) settled(newest uint64) bool {
	return !s.first && s.cursor == newest && len(s.asked)+len(s.late)+len(s.apart)+len(s.refused) == 0
}

// refuse notes which resources of a response the client refused: those that its
// words name, or else all.
func (s *subscription) refuse(d *difference, reason string, now time.Time) {
	if s.refused == nil {
		s.refused = map[string]bool{}
	}
	reason = reason[:min(len(reason), maxReason)]
	if !wildcard(s.typeURL) && len(d.resources) > 1 {
		// Envoy leaves off at the first bad one, and may not say which it is.
		if s.apart == nil {
			s.apart = map[string]bool{}
		}
		for _, r := range d.resources {
			s.apart[r.name] = true
		}
		return
	}
	named := false
	for _, r := range d.resources {
		if strings.Contains(reason, r.name) {
			s.refused[r.name], named = true, true
		}
	}
	if !named {
		for _, r := range d.resources {
			s.refused[r.name] = true
		}
	}
	for _, name := range d.removed {
		s.refused[name] = true
	}
	s.reason = reason
	s.retry = now.Add(min(firstRetry<<min(s.attempts, 16), lastRetry))
	s.attempts++
}

// due is what a subscription has to be told.
type due struct {
	sub  *subscription // or nil: there is none
	diff *difference
	// owed is true for an answer: it goes at once, even if it is empty.
	owed bool
	// retry is how long until what was refused is sent again, or zero.
	retry time.Duration
}

// dueLocked needs the log's lock as well.
func (s *subscription) dueLocked(l *Log, now time.Time) (due, error) {
	switch {
	case s == nil:
		return due{}, nil
	case s.first && s.names == nil:
		return due{sub: s, diff: l.everythingLocked(s.typeURL, s.held), owed: true}, nil
	case s.first:
		return due{sub: s, diff: l.namedLocked(s.typeURL, s.asked, s.held.versions(s.asked)), owed: true}, nil
	}
	d, ok := l.sinceLocked(s.typeURL, s.cursor)
	if !ok {
		return due{}, errBehind
	}
	if s.names != nil && !d.empty() {
		d = d.only(s.names)
	}
	out := due{sub: s, diff: d}
	if len(s.asked) > 0 {
		out.diff, out.owed = union(out.diff, l.namedLocked(s.typeURL, s.asked, nil)), true
	}
	if len(s.refused) > 0 {
		if out.retry = s.retry.Sub(now); out.retry <= 0 {
			out.diff, out.retry = union(out.diff, l.namedLocked(s.typeURL, s.refused, nil)), 0
		}
	}
	return out, nil
}

// nextApartLocked is the next resource that is sent by itself, or nil. What is
// gone, or not asked for any more, is not.
func (s *subscription) nextApartLocked(l *Log) *difference {
	for _, name := range slices.Sorted(maps.Keys(s.apart)) {
		delete(s.apart, name)
		if r := l.types[s.typeURL][name]; r != nil && (s.names == nil || s.names[name]) {
			return newDifference([]*resource{r}, nil)
		}
	}
	return nil
}

// told notes what was, or is about to be, sent.
func (s *subscription) told(upTo uint64) {
	s.first, s.held, s.asked, s.cursor = false, nil, nil, upTo
}

// stillGoneLocked takes out of late what is there again, or not asked for any more.
func (s *subscription) stillGoneLocked(l *Log) []string {
	return slices.DeleteFunc(slices.Clone(s.late), func(name string) bool {
		return l.types[s.typeURL][name] != nil || s.names != nil && !s.names[name]
	})
}
