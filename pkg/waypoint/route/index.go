package route

import (
	"bytes"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// index finds the first of a virtual host's routes that a request matches. Every
// route stands in it once: under its whole path, or under the literal text that all
// paths it can match begin with. The lists that a path leads to together have all
// candidates; each is in order, so the first match over all of them is found by
// going through each no further than the best one yet.
type index struct {
	routes []*Route
	// wire is what each route was compiled of, if that is kept: parts of the message
	// that came last.
	wire [][]byte
	// exact has routes by whole paths, folded those that ignore case.
	exact, folded map[string][]int32
	// tree has routes by prefix, foldedTree those that ignore case.
	tree, foldedTree *node
}

// node is of a radix tree.
type node struct {
	// label is the text from the parent to here.
	label string
	// routes are those of exactly this prefix, in order.
	routes []int32
	// first has the first byte of each child's label.
	first    []byte
	children []*node
}

func newIndex(routes []*Route) *index {
	x := &index{routes: routes, tree: &node{}}
	for i, r := range routes {
		n := int32(i) //nolint:gosec // bounded by a message's size
		switch list, key := r.match.place(); list {
		case inFolded:
			if x.folded == nil {
				x.folded = map[string][]int32{}
			}
			x.folded[key] = append(x.folded[key], n)
		case inExact:
			if x.exact == nil {
				x.exact = map[string][]int32{}
			}
			x.exact[key] = append(x.exact[key], n)
		case inFoldedTree:
			if x.foldedTree == nil {
				x.foldedTree = &node{}
			}
			x.foldedTree.insert(key, n)
		case inTree:
			x.tree.insert(key, n)
		}
	}
	return x
}

// list is one of an index's.
type list uint8

const (
	inTree list = iota
	inFoldedTree
	inExact
	inFolded
)

// place is where a match stands in an index.
func (m *match) place() (of list, key string) {
	switch {
	case m.kind == pathExact && m.fold:
		return inFolded, m.path
	case m.kind == pathExact:
		return inExact, m.path
	case m.fold:
		return inFoldedTree, m.stem()
	}
	return inTree, m.stem()
}

// with is the index of other routes: the same lists, where each stands as the one
// before it did.
func (x *index) with(routes []*Route) *index {
	if len(routes) != len(x.routes) {
		return newIndex(routes)
	}
	for i, r := range routes {
		if r == x.routes[i] {
			continue
		}
		now, key := r.match.place()
		if before, old := x.routes[i].match.place(); now != before || key != old {
			return newIndex(routes)
		}
	}
	return &index{routes: routes, exact: x.exact, folded: x.folded, tree: x.tree, foldedTree: x.foldedTree}
}

func (n *node) insert(key string, route int32) {
	for key != "" {
		at := bytes.IndexByte(n.first, key[0])
		if at < 0 {
			n.first = append(n.first, key[0])
			n.children = append(n.children, &node{label: key, routes: []int32{route}})
			return
		}
		child := n.children[at]
		same := commonPrefix(child.label, key)
		if same < len(child.label) {
			upper := &node{label: child.label[:same], first: []byte{child.label[same]}, children: []*node{child}}
			child.label = child.label[same:]
			n.children[at] = upper
			child = upper
		}
		n, key = child, key[same:]
	}
	n.routes = append(n.routes, route)
}

func commonPrefix(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// find is the first matching route, or nil.
func (x *index) find(h *host, in *Input) *Route {
	path := h.common.pathOf(in.Request.Path)
	best := int32(len(x.routes)) //nolint:gosec // bounded by a message's size
	best = x.first(x.exact[path], best, path, in)
	best = x.descend(x.tree, best, path, path, in)
	if x.folded != nil || x.foldedTree != nil {
		low := strings.ToLower(path)
		best = x.first(x.folded[low], best, path, in)
		if x.foldedTree != nil {
			best = x.descend(x.foldedTree, best, low, path, in)
		}
	}
	if int(best) == len(x.routes) {
		return nil
	}
	return x.routes[best]
}

// pathOf is what of a request's path routes are matched on.
func (c *common) pathOf(path string) string {
	path = message.WithoutQuery(path)
	if c.ignoreParameters {
		path, _, _ = strings.Cut(path, ";")
	}
	return path
}

// first is the first route of a list that matches, if it comes before best.
func (x *index) first(list []int32, best int32, path string, in *Input) int32 {
	for _, n := range list {
		if n >= best {
			return best
		}
		if x.routes[n].match.holds(path, in) {
			return n
		}
	}
	return best
}

// descend follows key down the tree.
func (x *index) descend(n *node, best int32, key, path string, in *Input) int32 {
	for {
		if len(n.routes) > 0 {
			best = x.first(n.routes, best, path, in)
		}
		if key == "" {
			return best
		}
		at := bytes.IndexByte(n.first, key[0])
		if at < 0 {
			return best
		}
		n = n.children[at]
		if !strings.HasPrefix(key, n.label) {
			return best
		}
		key = key[len(n.label):]
	}
}
