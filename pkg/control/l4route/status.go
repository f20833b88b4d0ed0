package l4route

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Statuses is what is to be said about TCPRoutes, TLSRoutes and the connection
// rules of VirtualServices, after Streams was called for every port; sorted.
func (b *Builder) Statuses() []status.Status {
	var out []status.Status
	for _, r := range b.routes {
		s := status.Status{Object: r.object}
		for _, p := range r.parents {
			s.Parents = append(s.Parents, p.status)
		}
		out = append(out, s)
	}
	for object := range b.inEffect {
		c := status.Condition{Type: status.StreamsInEffect, Status: "True", Reason: "InEffect", Message: "the tcp and tls rules are in effect where the VirtualService is"}
		if notes := b.notes[object]; len(notes) > 0 {
			c.Status, c.Reason, c.Message = "False", "PartlyInEffect", strings.Join(notes, "; ")
		}
		s := status.Status{Object: object}
		s.Set(c)
		out = append(out, s)
	}
	status.Sort(out)
	return out
}
