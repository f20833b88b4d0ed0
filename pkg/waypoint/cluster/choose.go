package cluster

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// Choice is what a balancer goes by.
type Choice struct {
	// Hash is the route's hash of the request, if Hashed.
	Hash   uint64
	Hashed bool
	// Random is the exchange's random number, Attempt the try's, from 0: draws come
	// from both.
	Random  uint64
	Attempt int
	// Tried are the hosts of earlier tries.
	Tried []*Host
	// Attempts is how often to choose again where a host was tried already
	// (retry_host_predicate previous_hosts with host_selection_retry_max_attempts);
	// 0 is not to mind. Then any host that was not tried is taken, if there is one:
	// a host that refuses at once is the least busy, and would be drawn every time.
	Attempts int
	// PriorityEvery is update_frequency of the retry priority previous_priorities;
	// 0 is none.
	PriorityEvery int
	// Destination is where the client wanted to go, for ORIGINAL_DST clusters and
	// those of the internal listener itself.
	Destination netip.AddrPort
	// Authority is the request's, for dynamic forward proxies.
	Authority string
}

// Choose is the host for a try, or [ErrNoHost].
func (c *Cluster) Choose(o Choice) (*Host, error) {
	s := c.snap.Load()
	if s.spec.byDestination() {
		return c.destination(s, o)
	}
	r := o.Random + uint64(o.Attempt)*0x9e3779b97f4a7c15
	for i := 0; ; i++ {
		host, set, from := c.once(s, &o, &r, i)
		switch {
		case host == nil:
			c.stats.rqNoHost.Add(1)
			return nil, ErrNoHost
		case o.Attempts == 0 || !slices.Contains(o.Tried, host):
			return host, nil
		case i >= o.Attempts:
			return set.untried(from, o.Tried, host, &r), nil
		}
	}
}

// untried is one of the hosts that were not tried, or the one drawn: of the source
// that the draws ended at, else of another locality that has a weight.
func (s *hostSet) untried(from *source, tried []*Host, drawn *Host, r *uint64) *Host {
	if h := from.without(tried, r); h != nil {
		return h
	}
	if s.pick == nil || s.panic {
		return drawn
	}
	start := int(draw(r) % uint64(len(s.localities)))
	for i := range s.localities {
		l := &s.localities[(start+i)%len(s.localities)]
		if l.weight == 0 {
			continue
		}
		if h := l.healthy.without(tried, r); h != nil {
			return h
		}
	}
	return drawn
}

func (s *source) without(tried []*Host, r *uint64) *Host {
	if len(s.hosts) == 0 {
		return nil
	}
	start := int(draw(r) % uint64(len(s.hosts)))
	for i := range s.hosts {
		if h := s.hosts[(start+i)%len(s.hosts)]; !slices.Contains(tried, h) {
			return h
		}
	}
	return nil
}

// draw is the next random number of a choice (splitmix64).
func draw(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// once draws a host, or nil, and tells of which set and source.
func (c *Cluster) once(s *snapshot, o *Choice, r *uint64, attempt int) (*Host, *hostSet, *source) {
	random := draw(r)
	if p := s.spec.lb.policy; p == ringHash || p == maglev {
		hash := random
		if o.Hashed {
			hash = o.Hash
		}
		set := s.sets[priority(s.sets, hash)]
		from := &set.healthy
		if set.panic {
			c.stats.panic.Add(1)
			from = &set.all
		}
		return set.hash.choose(hash, attempt), set, from
	}
	set := s.sets[0]
	if len(s.sets) > 1 {
		set = s.sets[avoiding(s.sets, o.Tried, o.PriorityEvery, random)]
	}
	from := &set.healthy
	switch {
	case set.panic:
		c.stats.panic.Add(1)
		if s.spec.lb.failOnPanic {
			return nil, nil, nil
		}
		from = &set.all
	case set.pick != nil:
		from = &set.localities[set.pick.next(set.pick.weight)].healthy
	}
	return s.spec.lb.choose(from, r), set, from
}

// choose takes one of a source's hosts, or nil.
func (lb *balancing) choose(from *source, r *uint64) *Host {
	switch {
	case len(from.hosts) == 0:
		return nil
	case len(from.hosts) == 1:
		return from.hosts[0]
	case from.edf != nil:
		now := time.Time{}
		if lb.slow.window > 0 {
			now = time.Now()
		}
		return from.edf.next(func(h *Host) float64 { return lb.weight(h, now) })
	case lb.policy == roundRobin:
		return from.hosts[(from.next.Add(1)-1)%uint64(len(from.hosts))]
	case lb.policy == leastRequest && lb.fullScan:
		return leastOfAll(from.hosts, r)
	case lb.policy == leastRequest:
		return leastOf(from.hosts, lb.choices, r)
	}
	return from.hosts[draw(r)%uint64(len(from.hosts))]
}

func leastOf(hosts []*Host, choices uint32, r *uint64) (best *Host) {
	for range choices {
		if h := hosts[draw(r)%uint64(len(hosts))]; best == nil || h.load() < best.load() {
			best = h
		}
	}
	return best
}

func leastOfAll(hosts []*Host, r *uint64) (best *Host) {
	least, tied := int64(math.MaxInt64), uint64(0)
	for _, h := range hosts {
		switch active := h.load(); {
		case active < least:
			best, least, tied = h, active, 1
		case active == least:
			if tied++; draw(r)%tied == 0 {
				best = h
			}
		}
	}
	return best
}

// weight is a host's in a schedule: of LEAST_REQUEST by its active requests, and
// less while it starts.
func (lb *balancing) weight(h *Host, now time.Time) float64 {
	w := float64(h.Weight())
	if lb.policy == leastRequest && lb.bias != 0 {
		active := float64(h.load() + 1)
		if lb.bias != 1 {
			active = math.Pow(active, lb.bias)
		}
		w /= active
	}
	return w * lb.slow.factor(h, now)
}

// factor is 1 after the window; before, (age / window) ^ (1 / aggression), and not
// under the floor.
func (s *slowStart) factor(h *Host, now time.Time) float64 {
	passed := h.passed.Load()
	if s.window <= 0 || passed == 0 {
		return 1
	}
	age := max(now.Sub(time.Unix(0, passed)), time.Millisecond)
	if age >= s.window {
		return 1
	}
	f := float64(age) / float64(s.window)
	if s.aggression != 1 {
		f = math.Pow(f, 1/s.aggression)
	}
	return max(f, s.floor)
}
