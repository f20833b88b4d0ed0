package cluster

import (
	"sync/atomic"
	"time"
)

// hostSet is the hosts of one priority, with what chooses among them.
type hostSet struct {
	all, healthy source
	localities   []locality
	// pick chooses a locality by effective weight, or nil: no locality weights.
	pick *scheduler[int]
	// hash chooses by hash, or nil.
	hash hashed
	load uint32 // percent of the requests
	// panic: so few are healthy that all are used.
	panic bool
	// overprovision is in percent.
	overprovision uint32
}

type locality struct {
	name    Locality
	weight  uint32
	total   int
	healthy source
	hosts   []*Host
}

// source is a list to choose from.
type source struct {
	hosts []*Host
	// next is the round robin's position.
	next *atomic.Uint64
	// edf is there where weights differ or hosts start slowly.
	edf *scheduler[*Host]
}

// snapshot is what a cluster's readers see. It does not change, but for the
// balancers' positions.
type snapshot struct {
	spec *spec
	sets []*hostSet
	// hosts are those of all priorities, in order.
	hosts []*Host
	// slowUntil ends the last host's slow start.
	slowUntil time.Time
}

// build makes the snapshot of hosts by priority and locality. groups[p] are the
// localities of priority p in the order of the assignment.
func build(s *spec, groups [][]group, overprovision uint32, old *snapshot, now time.Time, seed uint64) *snapshot {
	out := &snapshot{spec: s}
	if len(groups) == 0 {
		groups = [][]group{nil}
	}
	for p, localities := range groups {
		set := &hostSet{overprovision: overprovision}
		for _, g := range localities {
			l := locality{name: g.name, weight: g.weight, total: len(g.hosts), hosts: g.hosts}
			for _, h := range g.hosts {
				set.all.hosts = append(set.all.hosts, h)
				if h.Healthy() {
					l.healthy.hosts = append(l.healthy.hosts, h)
					set.healthy.hosts = append(set.healthy.hosts, h)
				}
				h.markPassed(now)
				if s.lb.slow.window > 0 && h.Healthy() {
					if until := time.Unix(0, h.passed.Load()).Add(s.lb.slow.window); until.After(out.slowUntil) {
						out.slowUntil = until
					}
				}
			}
			set.localities = append(set.localities, l)
		}
		out.hosts = append(out.hosts, set.all.hosts...)
		out.sets = append(out.sets, set)
		var before *hostSet
		if old != nil && p < len(old.sets) {
			before = old.sets[p]
		}
		carry(set, before, seed)
	}
	loads(out.sets, s.lb.panic)
	slow := now.Before(out.slowUntil)
	for _, set := range out.sets {
		finish(set, s, slow, now, seed)
	}
	return out
}

// carry takes the round robin's positions over.
func carry(set, before *hostSet, seed uint64) {
	position := func(s *source) *atomic.Uint64 {
		if s != nil && s.next != nil {
			return s.next
		}
		n := new(atomic.Uint64)
		n.Store(seed)
		return n
	}
	if before == nil {
		before = &hostSet{}
	}
	set.all.next = position(&before.all)
	set.healthy.next = position(&before.healthy)
	for i := range set.localities {
		var was *source
		if i < len(before.localities) && before.localities[i].name == set.localities[i].name {
			was = &before.localities[i].healthy
		}
		set.localities[i].healthy.next = position(was)
	}
}

// finish makes the schedulers and tables of a set.
func finish(set *hostSet, s *spec, slow bool, now time.Time, seed uint64) {
	switch s.lb.policy {
	case ringHash, maglev:
		set.hash = newHashed(set, s)
		return
	case roundRobin, leastRequest:
		sources := []*source{&set.all, &set.healthy}
		if s.lb.localityWeighted {
			for i := range set.localities {
				sources = append(sources, &set.localities[i].healthy)
			}
		}
		for _, from := range sources {
			if len(from.hosts) > 1 && (slow || !equalWeights(from.hosts)) {
				from.edf = newScheduler(from.hosts, func(h *Host) float64 { return s.lb.weight(h, now) }, seed)
			}
		}
	case random, provided:
	}
	if s.lb.localityWeighted {
		set.pick = localityScheduler(set, seed)
	}
}

func equalWeights(hosts []*Host) bool {
	for _, h := range hosts[1:] {
		if h.Weight() != hosts[0].Weight() {
			return false
		}
	}
	return true
}

// localityScheduler weighs localities by what is healthy in them. It is nil where no
// locality has both weight and health.
func localityScheduler(set *hostSet, seed uint64) *scheduler[int] {
	var indexes []int
	weights := make([]float64, len(set.localities))
	for i, l := range set.localities {
		if l.total == 0 || l.weight == 0 {
			continue
		}
		share := min(1, float64(set.overprovision)/100*float64(len(l.healthy.hosts))/float64(l.total))
		if weights[i] = share * float64(l.weight); weights[i] > 0 {
			indexes = append(indexes, i)
		}
	}
	if len(indexes) == 0 {
		return nil
	}
	return newScheduler(indexes, func(i int) float64 { return weights[i] }, seed)
}
