package push

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// The types that are served, in the order in which a client must learn of them:
// a policy before the workloads that name it.
const (
	AuthorizationType = "type.googleapis.com/istio.security.Authorization"
	AddressType       = "type.googleapis.com/istio.workload.Address"
)

// maxChanges bounds the log's memory of changes. A client that is further behind
// is disconnected: it comes back with what it holds and gets the difference.
const maxChanges = 1 << 16

// resource is one resource as the wire has it.
type resource struct {
	name, version string
	// field is field 2 of a DeltaDiscoveryResponse: tag, length, Resource.
	field []byte
	// seq is the change that set it.
	seq uint64
}

// change says that something happened to a resource at seq.
type change struct {
	seq     uint64
	typeURL string
	name    string
}

// Log is the versioned set of resources. One writer, many readers.
type Log struct {
	// mu guards below.
	mu      sync.RWMutex
	seq     uint64
	types   map[string]map[string]*resource
	changes []change // rising seq; those before changes[0] are forgotten
	changed chan struct{}
}

// NewLog returns a log without resources.
func NewLog() *Log {
	return &Log{
		types:   map[string]map[string]*resource{AuthorizationType: {}, AddressType: {}},
		changed: make(chan struct{}),
	}
}

// Set makes the resources of a type exactly all, by name, and returns how many
// changed, were added or removed.
func (l *Log) Set(typeURL string, all map[string]proto.Message) (int, error) {
	encoded := make(map[string]*resource, len(all))
	for name, m := range all {
		r, err := encode(typeURL, name, m)
		if err != nil {
			return 0, err
		}
		encoded[name] = r
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	held, ok := l.types[typeURL]
	if !ok {
		return 0, fmt.Errorf("push: type %q is not served", typeURL)
	}
	n := 0
	note := func(name string) {
		l.seq++
		n++
		l.changes = append(l.changes, change{l.seq, typeURL, name})
	}
	for name, r := range encoded {
		if old := held[name]; old != nil && old.version == r.version {
			continue
		}
		note(name)
		r.seq = l.seq
		held[name] = r
	}
	for name := range held {
		if encoded[name] == nil {
			note(name)
			delete(held, name)
		}
	}
	if n == 0 {
		return 0, nil
	}
	if extra := len(l.changes) - maxChanges; extra > 0 {
		l.changes = append([]change(nil), l.changes[extra:]...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return n, nil
}

// encode marshals m once, for all clients.
func encode(typeURL, name string, m proto.Message) (*resource, error) {
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("push: %s: %w", name, err)
	}
	sum := sha256.Sum256(value)
	version := hex.EncodeToString(sum[:8])
	packed := appendString(nil, 1, typeURL) // google.protobuf.Any
	packed = appendBytes(packed, 2, value)
	body := appendString(nil, 1, version) // envoy.service.discovery.v3.Resource
	body = appendBytes(body, 2, packed)
	body = appendString(body, 3, name)
	return &resource{name: name, version: version, field: appendBytes(nil, 2, body)}, nil
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// head is the newest change, and the channel that closes on the next.
func (l *Log) head() (seq uint64, changed <-chan struct{}) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.seq, l.changed
}

// difference is what to send: resources that are new or changed, names that are gone.
type difference struct {
	resources []*resource
	removed   []string
	upTo      uint64
}

func (d *difference) empty() bool { return len(d.resources) == 0 && len(d.removed) == 0 }

// against compares a type with what a client says it holds.
func (l *Log) against(typeURL string, held map[string]string) difference {
	l.mu.RLock()
	defer l.mu.RUnlock()
	d := difference{upTo: l.seq}
	all := l.types[typeURL]
	for name, r := range all {
		if version, ok := held[name]; !ok || version != r.version {
			d.resources = append(d.resources, r)
		}
	}
	for name := range held {
		if all[name] == nil {
			d.removed = append(d.removed, name)
		}
	}
	return d
}

// since is what happened to a type after cursor. ok is false when the log no
// longer remembers.
func (l *Log) since(typeURL string, cursor uint64) (d difference, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	d.upTo = l.seq
	if cursor >= l.seq {
		return d, true
	}
	if len(l.changes) == 0 || l.changes[0].seq > cursor+1 {
		return d, false
	}
	all := l.types[typeURL]
	seen := map[string]bool{}
	// Sequence numbers are dense, so the first change after cursor is found by index.
	for _, c := range l.changes[cursor+1-l.changes[0].seq:] {
		if c.typeURL != typeURL || seen[c.name] {
			continue
		}
		seen[c.name] = true
		if r := all[c.name]; r != nil {
			d.resources = append(d.resources, r)
		} else {
			d.removed = append(d.removed, c.name)
		}
	}
	return d, true
}

// named is the resources of those names; names that do not exist are removed.
func (l *Log) named(typeURL string, names []string) difference {
	l.mu.RLock()
	defer l.mu.RUnlock()
	d := difference{upTo: l.seq}
	for _, name := range names {
		if r := l.types[typeURL][name]; r != nil {
			d.resources = append(d.resources, r)
		} else {
			d.removed = append(d.removed, name)
		}
	}
	return d
}

// Size is how many resources of a type there are.
func (l *Log) Size(typeURL string) int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return len(l.types[typeURL])
}
