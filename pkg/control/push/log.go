package push

import (
	"fmt"
	"hash/maphash"
	"math/bits"
	"reflect"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"
)

const (
	// maxChanges bounds the log's memory of changes. A client that is further
	// behind is disconnected: it comes back with what it holds and gets the
	// difference.
	maxChanges = 1 << 16
	// maxShared bounds the differences kept for sharing; those after are made anew.
	maxShared = 256
)

// Resources are all resources of some types: by type, then by name.
type Resources map[string]map[string]proto.Message

// Generated is a configuration.
type Generated struct {
	All Resources
	// Before, if not nil, is one that was generated earlier, of which All differs in
	// Changed alone: messages that are new or others. Nothing is gone.
	Before, Changed Resources
}

// change says that something happened to a resource.
type change struct{ typeURL, name string }

// position is a place in the log, of one type.
type position struct {
	typeURL string
	after   uint64
}

// Log is the versioned set of resources. One writer, many readers.
type Log struct {
	// mu guards below.
	mu    sync.RWMutex
	seq   uint64
	types map[string]map[string]*resource
	// changes are the latest, the last has number seq.
	changes []change
	changed chan struct{}
	// prints are the fingerprints of all resources, by type: whether a client holds one
	// in its newest version is told without a look at the resource.
	prints map[string]map[uint64]struct{}
	// naming is what a request that names all of them takes.
	naming atomic.Int64
	// encoder and last, what was set last if messages are kept, are the writer's.
	encoder encoder
	last    Resources

	// sharing guards shared: the differences of the moment, each made once for
	// all clients that are at its position. A change empties it.
	sharing sync.RWMutex
	shared  map[position]*difference
}

// NewLog returns a log of workloads and policies, without any yet.
func NewLog() *Log { return newLog(meshTypes) }

func newLog(types []string) *Log {
	l := &Log{types: map[string]map[string]*resource{}, prints: map[string]map[uint64]struct{}{}, changed: make(chan struct{}), shared: map[position]*difference{}}
	for _, t := range types {
		l.types[t], l.prints[t] = map[string]*resource{}, map[uint64]struct{}{}
	}
	return l
}

// Set makes the resources of the types named exactly all, in one step, so that
// no client sees a workload without the policy that came with it. It returns how
// many changed, were added or removed; on an error nothing has changed.
func (l *Log) Set(all Resources) (int, error) { return l.follow(Generated{All: all}) }

// follow is Set, which does not look at all where what was set last is known to differ
// little.
func (l *Log) follow(g Generated) (int, error) {
	l.mu.RLock() // the one writer is here: what it reads stays
	var updates []update
	var err error
	for typeURL, messages := range g.All {
		held, served := l.types[typeURL]
		if !served {
			err = fmt.Errorf("push: type %q is not served", typeURL)
			break
		}
		if l.encoder.keep && same(l.last[typeURL], messages) {
			continue
		}
		whole := !l.encoder.keep || !same(l.last[typeURL], g.Before[typeURL])
		if !whole {
			messages = g.Changed[typeURL]
		}
		stay := 0
		for name, m := range messages {
			old := held[name]
			var r *resource
			if r, err = l.encoder.encode(typeURL, name, m, old); err != nil {
				break
			}
			if old != nil {
				stay++
			}
			if r != old {
				updates = append(updates, update{change{typeURL, name}, r})
			}
		}
		if err != nil {
			break
		}
		if !whole || stay == len(held) {
			continue
		}
		for name := range held {
			if _, stays := messages[name]; !stays {
				updates = append(updates, update{change: change{typeURL, name}})
			}
		}
	}
	l.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	if l.encoder.keep {
		l.last = g.All
	}
	l.write(updates)
	return len(updates), nil
}

// Change makes some resources of a type others, and takes some away; all others stay.
// It returns how many changed.
func (l *Log) Change(typeURL string, messages map[string]proto.Message, gone []string) (int, error) {
	l.mu.RLock()
	held := l.types[typeURL]
	var updates []update
	var err error
	for name, m := range messages {
		var r *resource
		if r, err = l.encoder.encode(typeURL, name, m, held[name]); err != nil {
			break
		}
		if r != held[name] {
			updates = append(updates, update{change{typeURL, name}, r})
		}
	}
	for _, name := range gone {
		if held[name] != nil {
			updates = append(updates, update{change: change{typeURL, name}})
		}
	}
	l.mu.RUnlock()
	switch {
	case held == nil:
		return 0, fmt.Errorf("push: type %q is not served", typeURL)
	case err != nil:
		return 0, err
	}
	l.last = nil // it is not what is held any more
	l.write(updates)
	return len(updates), nil
}

// update is a resource that is to be another.
type update struct {
	change
	resource *resource // or nil: it is gone
}

func (l *Log) write(updates []update) {
	if len(updates) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, u := range updates {
		held, prints := l.types[u.typeURL], l.prints[u.typeURL]
		entry := int64(len(u.name) + entrySize)
		if old := held[u.name]; old != nil {
			l.naming.Add(-entry)
			delete(prints, fingerprint([]byte(u.name), []byte(old.version)))
		}
		if u.resource == nil {
			delete(held, u.name)
		} else {
			held[u.name] = u.resource
			l.naming.Add(entry)
			prints[fingerprint([]byte(u.name), []byte(u.resource.version))] = struct{}{}
		}
		l.seq++
		l.changes = append(l.changes, u.change)
	}
	if extra := len(l.changes) - maxChanges; extra > 0 {
		l.changes = append([]change(nil), l.changes[extra:]...)
	}
	clear(l.shared)
	close(l.changed)
	l.changed = make(chan struct{})
}

// entrySize is what a resource takes in a request that names what a client holds, beside
// the name: the version and what is around them.
const entrySize = 24

// Naming is the size in bytes of what a client says that comes back with everything.
func (l *Log) Naming() int64 { return l.naming.Load() }

// same tells whether two maps are one, which has not been changed.
func same(a, b map[string]proto.Message) bool {
	return a != nil && reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// next is the number of the newest change, and the channel that closes on another.
func (l *Log) next() (seq uint64, changed <-chan struct{}) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seq, l.changed
}

// sinceLocked is what happened to a type after a change. ok is false when the
// log no longer remembers.
func (l *Log) sinceLocked(typeURL string, after uint64) (d *difference, ok bool) {
	if after == l.seq {
		return nothing, true
	}
	behind := l.seq - after
	if behind > uint64(len(l.changes)) {
		return nil, false
	}
	at := position{typeURL, after}
	l.sharing.RLock()
	d, ok = l.shared[at]
	l.sharing.RUnlock()
	if ok {
		return d, true
	}
	l.sharing.Lock()
	defer l.sharing.Unlock()
	if d, ok = l.shared[at]; ok { // thousands come at the same time
		return d, true
	}
	var resources []*resource
	var removed []string
	seen := map[string]bool{}
	for _, c := range l.changes[uint64(len(l.changes))-behind:] {
		if c.typeURL != typeURL || seen[c.name] {
			continue
		}
		seen[c.name] = true
		if r := l.types[typeURL][c.name]; r != nil {
			resources = append(resources, r)
		} else {
			removed = append(removed, c.name)
		}
	}
	d = nothing
	if len(seen) > 0 {
		d = newDifference(resources, removed)
	}
	if len(l.shared) < maxShared {
		l.shared[at] = d
	}
	return d, true
}

// everythingLocked is a type as a client needs it that holds some of it already.
func (l *Log) everythingLocked(typeURL string, held holding) *difference {
	if len(held) == 0 {
		return l.allLocked(typeURL)
	}
	all, prints := l.types[typeURL], l.prints[typeURL]
	right, wrong := 0, 0
	for name, version := range held.all() {
		if _, ok := prints[fingerprint(name, version)]; ok {
			right++
		} else {
			wrong++
		}
	}
	if right == len(all) && wrong == 0 { // most come back with what there is
		return nothing
	}
	var removed []string
	has := make(map[string]bool, right)
	for name, version := range held.all() {
		switch r := all[string(name)]; {
		case r == nil:
			removed = append(removed, string(name))
		case r.version == string(version):
			has[r.name] = true
		}
	}
	var resources []*resource
	for name, r := range all {
		if !has[name] {
			resources = append(resources, r)
		}
	}
	return newDifference(resources, removed)
}

// seed makes fingerprints that nobody outside can aim at.
var seed = maphash.MakeSeed()

// fingerprint stands for a resource in one version. That two have the same is as good as
// impossible; if they had, a client would not be sent one of them until it changes.
func fingerprint(name, version []byte) uint64 {
	return maphash.Bytes(seed, name) ^ bits.RotateLeft64(maphash.Bytes(seed, version), 1)
}

// beginning is the position of those who hold nothing. No change has this number.
const beginning = ^uint64(0)

// allLocked is a type as a whole, shared by all who start with nothing.
func (l *Log) allLocked(typeURL string) *difference {
	l.sharing.Lock()
	defer l.sharing.Unlock()
	at := position{typeURL, beginning}
	if d, ok := l.shared[at]; ok {
		return d
	}
	resources := make([]*resource, 0, len(l.types[typeURL]))
	for _, r := range l.types[typeURL] {
		resources = append(resources, r)
	}
	d := newDifference(resources, nil)
	d.join = true
	l.shared[at] = d
	return d
}

// namedLocked is the resources of those names, without those that a client
// holds; a name that does not exist is gone.
func (l *Log) namedLocked(typeURL string, names map[string]bool, held map[string]string) *difference {
	var resources []*resource
	var removed []string
	for name := range names {
		r := l.types[typeURL][name]
		if r == nil {
			removed = append(removed, name)
		} else if version, ok := held[name]; !ok || version != r.version {
			resources = append(resources, r)
		}
	}
	return newDifference(resources, removed)
}
