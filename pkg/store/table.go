package store

import "hash/maphash"

// shardCount trades the cost of a change (one shard is copied) against that of a
// snapshot (the list of shards is copied). At 100,000 entries a shard holds 400.
const shardCount = 256

var seed = maphash.MakeSeed()

// table is an immutable map. Changes make a new one that shares all shards but
// those touched; see [editor].
type table[K comparable, V any] struct {
	shards [shardCount]map[K]V
	size   int
}

func shardOf[K comparable](key K) int {
	return int(maphash.Comparable(seed, key) % shardCount)
}

func (t *table[K, V]) get(key K) (V, bool) {
	v, ok := t.shards[shardOf(key)][key]
	return v, ok
}

// each calls f for all entries, in no order, until it returns false.
func (t *table[K, V]) each(f func(K, V) bool) {
	for _, shard := range t.shards {
		for k, v := range shard {
			if !f(k, v) {
				return
			}
		}
	}
}

// editor changes a copy of a table; it copies each shard once.
type editor[K comparable, V any] struct {
	table  *table[K, V]
	copied [shardCount]bool
	// owned are the keys whose value this editor made: no snapshot has it yet, so
	// an [index] may change it in place.
	owned map[K]struct{}
}

func edit[K comparable, V any](t *table[K, V]) *editor[K, V] {
	next := *t
	return &editor[K, V]{table: &next}
}

func (e *editor[K, V]) shard(key K) map[K]V {
	i := shardOf(key)
	if e.copied[i] {
		return e.table.shards[i]
	}
	old := e.table.shards[i]
	next := make(map[K]V, len(old)+1)
	for k, v := range old {
		next[k] = v
	}
	e.table.shards[i], e.copied[i] = next, true
	return next
}

func (e *editor[K, V]) get(key K) (V, bool) { return e.table.get(key) }

func (e *editor[K, V]) set(key K, v V) {
	shard := e.shard(key)
	if _, ok := shard[key]; !ok {
		e.table.size++
	}
	shard[key] = v
}

func (e *editor[K, V]) remove(key K) {
	if _, ok := e.table.get(key); !ok {
		return
	}
	delete(e.shard(key), key)
	delete(e.owned, key)
	e.table.size--
}
