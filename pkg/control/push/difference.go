package push

import (
	"slices"
	"sync"

	"google.golang.org/grpc/mem"
)

// difference is what to tell of a type: resources that are new or changed, and
// names that are gone. It is never changed, so that clients share it.
type difference struct {
	resources []*resource
	removed   []string
	// additions is the difference without what is gone: itself, if nothing is.
	additions *difference

	// join has the resources copied together: a difference that many are sent, of
	// thousands of resources, each of which would cost each of them something.
	join bool

	encode sync.Once
	parts  mem.BufferSlice
	size   int
}

func newDifference(resources []*resource, removed []string) *difference {
	d := &difference{resources: resources, removed: removed}
	d.additions = d
	if len(removed) > 0 {
		d.additions = newDifference(resources, nil)
	}
	return d
}

// nothing is the empty difference.
var nothing = newDifference(nil, nil)

func (d *difference) empty() bool { return len(d.resources) == 0 && len(d.removed) == 0 }

// encoded is the difference as fields of a DeltaDiscoveryResponse, and its
// length. It is made once, for all who send it.
func (d *difference) encoded() (mem.BufferSlice, int) {
	d.encode.Do(func() {
		parts := d.fields()
		var gone []byte
		for _, name := range d.removed {
			gone = appendString(gone, 6, name)
		}
		if len(gone) > 0 {
			parts = append(parts, mem.SliceBuffer(gone))
		}
		d.parts, d.size = slices.Clip(parts), parts.Len()
	})
	return d.parts, d.size
}

// fields are the resources.
func (d *difference) fields() mem.BufferSlice {
	parts := make(mem.BufferSlice, 0, len(d.resources)+1)
	for _, r := range d.resources {
		parts = append(parts, r.field)
	}
	if !d.join {
		return parts
	}
	whole := parts.Materialize()
	parts = parts[:0]
	for len(whole) > 0 {
		n := min(len(whole), joinedSize)
		parts = append(parts, mem.SliceBuffer(whole[:n]))
		whole = whole[n:]
	}
	return slices.Clip(parts)
}

// joinedSize is that of the parts of a difference that is joined: a frame's.
const joinedSize = 16 << 10

// only is what of d has those names.
func (d *difference) only(names map[string]bool) *difference {
	var resources []*resource
	var removed []string
	for _, r := range d.resources {
		if names[r.name] {
			resources = append(resources, r)
		}
	}
	for _, name := range d.removed {
		if names[name] {
			removed = append(removed, name)
		}
	}
	return newDifference(resources, removed)
}

// union joins two differences of one moment.
func union(a, b *difference) *difference {
	if a.empty() {
		return b
	}
	if b.empty() {
		return a
	}
	resources, removed := slices.Clone(a.resources), slices.Clone(a.removed)
	known := make(map[string]bool, len(resources)+len(removed))
	for _, r := range resources {
		known[r.name] = true
	}
	for _, name := range removed {
		known[name] = true
	}
	for _, r := range b.resources {
		if !known[r.name] {
			resources = append(resources, r)
		}
	}
	for _, name := range b.removed {
		if !known[name] {
			removed = append(removed, name)
		}
	}
	return newDifference(resources, removed)
}
