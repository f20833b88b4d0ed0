package routing

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// portKey is a port of a service.
type portKey struct {
	service *model.Service
	number  uint32
}

// note is a remark about a VirtualService.
type note struct {
	object status.Object
	text   string
}

// notes are what the translation of a port has to say of VirtualServices: what of
// their effect is not obvious, and what they lead to that is not there.
type notes struct{ remarks, missing []note }

// remark adds to what is said of a VirtualService that is in effect.
func (t *table) remark(v *virtual, format string, args ...any) {
	t.notes.remarks = append(t.notes.remarks, note{v.owner.object, fmt.Sprintf(format, args...)})
}

// unresolved notes a destination of a VirtualService that is not there.
func (t *table) unresolved(o *owner, format string, args ...any) {
	if o.object.Kind == kindVirtualService {
		t.notes.missing = append(t.notes.missing, note{o.object, fmt.Sprintf(format, args...)})
	}
}

// maxNamed is how many of the rules that are tried before are named.
const maxNamed = 5

// ranks tell of the VirtualServices of a service that others' rules are tried before
// their own.
func (b *Builder) ranks(s *model.Service) (out []note) {
	var before []string
	for i, c := range b.virtuals[s] {
		if i > 0 {
			names := strings.Join(before, ", ")
			if more := i - len(before); more > 0 {
				names += fmt.Sprintf(" and %d more", more)
			}
			out = append(out, note{c.virtual.owner.object, fmt.Sprintf("for %s the rules of %s are tried before (an exact host before a wildcard, then the oldest, then by name)", s.Hostname, names)})
		}
		if len(before) < maxNamed {
			before = append(before, c.virtual.object.Namespace+"/"+c.virtual.object.Name)
		}
	}
	return out
}

// Visited tells whether HTTP was called for a port since its routes changed.
func (b *Builder) Visited(s *model.Service, port uint32) bool {
	_, yes := b.notes[portKey{s, port}]
	return yes
}

// Statuses is what is to be said about VirtualServices, HTTPRoutes and GRPCRoutes,
// after HTTP was called for every port, in no order. It does not change any more.
func (b *Builder) Statuses() []status.Status {
	own := map[status.Object]*status.Status{}
	of := func(o status.Object) *status.Status {
		s := own[o]
		if s == nil {
			copied := *b.status(o)
			copied.Conditions = slices.Clone(copied.Conditions)
			s = &copied
			own[o] = s
		}
		return s
	}
	remark := func(n note) {
		s := of(n.object)
		for _, c := range s.Conditions {
			if c.Type == status.InEffect && !strings.Contains(c.Message, n.text) {
				c.Message += "; " + n.text
				s.Set(c)
				return
			}
		}
	}
	for _, s := range b.model.Services {
		for _, n := range b.ranks(s) {
			remark(n)
		}
	}
	missing := map[status.Object][]string{}
	for _, s := range b.model.Services {
		for i := range s.Ports {
			found := b.notes[portKey{s, s.Ports[i].Number}]
			for _, n := range found.remarks {
				remark(n)
			}
			for _, n := range found.missing {
				missing[n.object] = append(missing[n.object], n.text)
			}
		}
	}
	for o, texts := range missing {
		slices.Sort(texts)
		of(o).Set(status.Condition{Type: status.DestinationsResolved, Status: "False", Reason: "NotFound", Message: strings.Join(slices.Compact(texts), "; ")})
	}
	all := make([]status.Status, 0, len(b.statuses))
	for o, s := range b.statuses {
		if own[o] != nil {
			s = own[o]
		}
		all = append(all, *s)
	}
	return all
}
