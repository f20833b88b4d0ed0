package cluster

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// hashed chooses by a hash. attempt counts choices of one try, from 0.
type hashed interface {
	choose(hash uint64, attempt int) *Host
}

// share is a host's part of a table; the parts of all sum up to 1.
type share struct {
	host   *Host
	key    string
	weight float64
}

// newHashed makes the table of a set: of its healthy hosts, or of all in a panic.
func newHashed(set *hostSet, s *spec) hashed {
	var shares []share
	add := func(hosts []*Host, part float64) {
		sum := 0.0
		for _, h := range hosts {
			sum += float64(h.Weight())
		}
		for _, h := range hosts {
			shares = append(shares, share{h, h.hashKey(s.lb.hashHostname), float64(h.Weight()) * part / sum})
		}
	}
	hosts := func(l *locality) []*Host {
		if set.panic {
			return l.hosts
		}
		return l.healthy.hosts
	}
	localityWeights := 0.0
	if s.lb.localityWeighted {
		for i := range set.localities {
			localityWeights += float64(set.localities[i].weight)
		}
	}
	switch {
	case localityWeights > 0:
		for i := range set.localities {
			l := &set.localities[i]
			if l.weight > 0 {
				add(hosts(l), float64(l.weight)/localityWeights)
			}
		}
	case set.panic:
		add(set.all.hosts, 1)
	default:
		add(set.healthy.hosts, 1)
	}
	var table hashed
	if s.lb.policy == maglev {
		table = newMaglev(shares, s.lb.tableSize)
	} else {
		table = newRing(shares, s.lb.minRing, s.lb.maxRing, s.lb.murmur)
	}
	if s.lb.balanceFactor > 0 && len(shares) > 0 {
		return &bounded{table, shares, s.lb.balanceFactor}
	}
	return table
}

// hashKey is what the tables hash: hash_key of the metadata envoy.lb, or the name or
// address.
func (h *Host) hashKey(hostname bool) string {
	if key := h.facts.Load().hashKey; key != "" {
		return key
	}
	if hostname {
		return h.Hostname
	}
	return h.Address
}

type point struct {
	hash uint64
	host *Host
}

type ring []point

// newRing is Envoy's ketama ring: points hash(key_i) in proportion to the weights,
// scaled so that the lightest host has a whole number of them.
func newRing(shares []share, low, high uint64, murmur bool) ring {
	if len(shares) == 0 {
		return nil
	}
	lightest := shares[0].weight
	for _, s := range shares {
		lightest = min(lightest, s.weight)
	}
	scale := min(math.Ceil(lightest*float64(low))/lightest, float64(high))
	points := make(ring, 0, int(math.Ceil(scale)))
	current, target := 0.0, 0.0
	var key []byte
	for _, s := range shares {
		key = append(append(key[:0], s.key...), '_')
		prefix := len(key)
		target += scale * s.weight
		for i := uint64(0); current < target; i++ {
			key = strconv.AppendUint(key[:prefix], i, 10)
			hash := uint64(0)
			if murmur {
				hash = murmur2(key)
			} else {
				hash = xxhash.Sum64(key)
			}
			points = append(points, point{hash, s.host})
			current++
		}
	}
	slices.SortStableFunc(points, func(a, b point) int { return cmp.Compare(a.hash, b.hash) })
	return points
}

// choose is the first point at or after the hash; tries of one choice go on along
// the ring.
func (r ring) choose(hash uint64, attempt int) *Host {
	if len(r) == 0 {
		return nil
	}
	at, _ := slices.BinarySearchFunc(r, hash, func(p point, h uint64) int { return cmp.Compare(p.hash, h) })
	return r[(at+attempt)%len(r)].host
}

type maglevTable []*Host

// newMaglev fills the table as the paper does (Maglev, NSDI 2016, listing 1), with
// hosts in the order of their keys and weights by rounds.
func newMaglev(shares []share, size uint64) maglevTable {
	if len(shares) == 0 {
		return nil
	}
	type entry struct {
		share
		offset, skip, next uint64
		target             float64
	}
	heaviest := 0.0
	entries := make([]entry, len(shares))
	for i, s := range shares {
		heaviest = max(heaviest, s.weight)
		seeded := xxhash.NewWithSeed(1)
		_, _ = seeded.WriteString(s.key)
		entries[i] = entry{share: s, offset: xxhash.Sum64String(s.key) % size, skip: seeded.Sum64()%(size-1) + 1}
	}
	slices.SortStableFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	table := make(maglevTable, size)
	filled := uint64(0)
	for round := 1.0; filled < size; round++ {
		for i := 0; i < len(entries) && filled < size; i++ {
			e := &entries[i]
			if round*e.weight < e.target {
				continue
			}
			e.target += heaviest
			at := (e.offset + e.skip*e.next) % size
			for table[at] != nil {
				e.next++
				at = (e.offset + e.skip*e.next) % size
			}
			table[at] = e.host
			e.next++
			filled++
		}
	}
	return table
}

func (t maglevTable) choose(hash uint64, attempt int) *Host {
	if len(t) == 0 {
		return nil
	}
	if attempt > 0 {
		hash ^= math.MaxUint64 - uint64(attempt) + 1
	}
	return t[hash%uint64(len(t))]
}

// bounded keeps hosts under a factor of the mean load (hash_balance_factor).
type bounded struct {
	table  hashed
	shares []share
	factor uint32 // percent
}

func (b *bounded) choose(hash uint64, attempt int) *Host {
	host := b.table.choose(hash, attempt)
	if host == nil {
		return nil
	}
	total := int64(0)
	weight := map[*Host]float64{}
	for _, s := range b.shares {
		total += s.host.active.Load()
		weight[s.host] = s.weight
	}
	overloaded := func(h *Host) (float64, bool) {
		slots := max(1, math.Ceil(float64(total+1)*float64(b.factor)/100*weight[h]))
		load := float64(h.active.Load()) / slots
		return load, load >= 1
	}
	if _, over := overloaded(host); !over {
		return host
	}
	// A walk over the other hosts in an order that the hash alone decides.
	order := make([]int, len(b.shares))
	for i := range order {
		order[i] = i
	}
	state := hash
	best, least := host, math.Inf(1)
	for i := range order {
		j := i + int(draw(&state)%uint64(len(order)-i))
		order[i], order[j] = order[j], order[i]
		h := b.shares[order[i]].host
		if h == host {
			continue
		}
		load, over := overloaded(h)
		if !over {
			return h
		}
		if load < least {
			best, least = h, load
		}
	}
	return best
}

// murmur2 is MurmurHash64A with libstdc++'s seed, as Envoy's MURMUR_HASH_2.
func murmur2(key []byte) uint64 {
	const mul = 0xc6a4a7935bd1e995
	mix := func(v uint64) uint64 { return v ^ v>>47 }
	hash := uint64(0xc70f6907) ^ uint64(len(key))*mul
	for ; len(key) >= 8; key = key[8:] {
		v := uint64(key[0]) | uint64(key[1])<<8 | uint64(key[2])<<16 | uint64(key[3])<<24 |
			uint64(key[4])<<32 | uint64(key[5])<<40 | uint64(key[6])<<48 | uint64(key[7])<<56
		hash = (hash ^ mix(v*mul)*mul) * mul
	}
	if len(key) > 0 {
		v := uint64(0)
		for i := len(key) - 1; i >= 0; i-- {
			v = v<<8 | uint64(key[i])
		}
		hash = (hash ^ v) * mul
	}
	return mix(mix(hash) * mul)
}
