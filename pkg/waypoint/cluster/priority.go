package cluster

// loads distributes the requests over the priorities as Envoy does: by health times
// the overprovisioning factor, and by size where everything panics. threshold is
// healthy_panic_threshold in percent; 0 is no panic.
func loads(sets []*hostSet, threshold uint32) {
	health := make([]uint32, len(sets))
	for i, set := range sets {
		health[i] = healthOf(set)
	}
	sum := total(health)
	distribute(sets, health, sum)
	if sum == 0 && threshold == 0 {
		sets[0].load = 100 // nothing can be chosen there
		return
	}
	all := true
	for _, set := range sets {
		set.panic = sum < 100 && panics(set, threshold)
		all = all && set.panic
	}
	if all {
		bySize(sets)
	}
}

// healthOf is 0 to 100.
func healthOf(set *hostSet) uint32 {
	if len(set.all.hosts) == 0 {
		return 0
	}
	return min(100, set.overprovision*uint32(len(set.healthy.hosts))/uint32(len(set.all.hosts)))
}

func total(health []uint32) (sum uint32) {
	for _, h := range health {
		sum += h
	}
	return min(100, sum)
}

// distribute fills the loads from the highest priority on; what rounding leaves goes
// to the first that has health.
func distribute(sets []*hostSet, health []uint32, sum uint32) {
	if sum == 0 {
		return
	}
	left, first := uint32(100), -1
	for i, set := range sets {
		if first < 0 && health[i] > 0 {
			first = i
		}
		set.load = min(left, health[i]*100/sum)
		left -= set.load
	}
	if first >= 0 {
		sets[first].load += left
	}
}

func panics(set *hostSet, threshold uint32) bool {
	healthy := 0.0
	if n := len(set.all.hosts); n > 0 {
		healthy = 100 * float64(len(set.healthy.hosts)) / float64(n)
	}
	return healthy < float64(threshold)
}

func bySize(sets []*hostSet) {
	hosts := 0
	for _, set := range sets {
		hosts += len(set.all.hosts)
	}
	if hosts == 0 {
		sets[0].load = 100
		return
	}
	left, first := uint32(100), -1
	for i, set := range sets {
		n := len(set.all.hosts)
		if first < 0 && n > 0 {
			first = i
		}
		set.load = uint32(100 * n / hosts)
		left -= set.load
	}
	sets[first].load += left
}

// priority chooses one by its load; sum of loads is 100.
func priority(sets []*hostSet, random uint64) int {
	at, upTo := random%100+1, uint64(0)
	for i, set := range sets {
		if upTo += uint64(set.load); at <= upTo {
			return i
		}
	}
	return 0
}

// avoiding is priority without those that were tried (retry_priority
// previous_priorities); where all were, it begins again.
func avoiding(sets []*hostSet, tried []*Host, every int, random uint64) int {
	if every <= 0 || len(tried) < every {
		return priority(sets, random)
	}
	// What was tried counts in whole steps of every.
	tried = tried[:len(tried)/every*every]
	excluded := make([]bool, len(sets))
	for _, h := range tried {
		if p := h.Priority(); p < len(excluded) {
			excluded[p] = true
		}
		if adjusted := without(sets, excluded); adjusted == nil {
			clear(excluded)
		}
	}
	if adjusted := without(sets, excluded); adjusted != nil {
		return priority(adjusted, random)
	}
	return priority(sets, random)
}

// without are the loads of the sets that are not excluded, or nil where none of
// those is healthy.
func without(sets []*hostSet, excluded []bool) []*hostSet {
	health := make([]uint32, len(sets))
	for i, set := range sets {
		if !excluded[i] {
			health[i] = healthOf(set)
		}
	}
	sum := total(health)
	if sum == 0 {
		return nil
	}
	out := make([]*hostSet, len(sets))
	for i := range out {
		out[i] = &hostSet{}
	}
	distribute(out, health, sum)
	return out
}
