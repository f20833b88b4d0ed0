package routing

import (
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// maxMemos bounds for how many kinds of clients the routes of a port are remembered.
const maxMemos = 4

// memo is what was made at a port of the rules that were in effect there. It holds for
// as long as the builder does.
type memo struct {
	destinations Destinations
	traced       bool
	// mixed: HTTPRoutes and GRPCRoutes were there, which changes their matches.
	mixed bool
	rules map[*rule]*made
}

// made is what a rule became at a port.
type made struct {
	action *forwarding
	// backends are the clusters that it leads to, missing what is said of those that
	// are not there.
	backends []Backend
	missing  []note
	// matches are by the rule's; those that were not reached are empty.
	matches []madeMatch
}

type madeMatch struct {
	routes []*routev3.Route
	// all: every request matches.
	all bool
}

// recall finds what was made for a kind of client, or an empty memo.
func (b *Builder) recall(at portKey, d Destinations, traced bool) *memo {
	for _, m := range b.memos[at] {
		if m.destinations == d && m.traced == traced {
			return m
		}
	}
	return &memo{destinations: d, traced: traced}
}

// remember keeps what a table was made of, in the place of what it was made from.
func (b *Builder) remember(at portKey, m *memo) {
	others := slices.DeleteFunc(b.memos[at], func(o *memo) bool { return o.destinations == m.destinations && o.traced == m.traced })
	if len(others) == maxMemos {
		others = others[1:]
	}
	b.memos[at] = append(others, m)
}

// made is what a rule becomes at this port, but for its matches, and notes where it
// leads to.
func (t *table) made(r *rule) *made {
	m := t.now.rules[r]
	if m != nil {
		return m
	}
	if m = t.before.rules[r]; m == nil {
		m = t.make(r)
	}
	t.now.rules[r] = m
	for _, b := range m.backends {
		t.backends[b] = true
	}
	t.notes.missing = append(t.notes.missing, m.missing...)
	return m
}

func (t *table) make(r *rule) *made {
	alone := *t
	alone.backends, alone.notes = map[Backend]bool{}, notes{}
	m := &made{action: alone.forward(r), matches: make([]madeMatch, len(r.matches))}
	m.backends, m.missing = slices.Collect(maps.Keys(alone.backends)), alone.notes.missing
	return m
}

// useMatch adds the routes of one of a rule's matches, which is made what it is here
// if that has not been done before.
func (t *table) useMatch(r *rule, i int, here func(match) match) {
	m := t.made(r)
	if m.matches[i].routes == nil {
		x := here(r.matches[i])
		m.matches[i] = madeMatch{t.routesOf(r, x, m.action), x.all()}
	}
	t.routes = append(t.routes, m.matches[i].routes...)
	t.closed = t.closed || m.matches[i].all
}
