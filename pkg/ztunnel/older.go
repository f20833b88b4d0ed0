package ztunnel

import (
	"context"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// firstEphemeral is where the ports begin that kernels give to clients.
const firstEphemeral = 32768

// ends are a socket's.
type ends struct{ local, remote netip.AddrPort }

// noteOlder remembers the pod's connections of before its enrolment, which the
// agent does not carry. It is called before the agent makes its first socket
// in the pod, so whatever is there is older.
func (p *Proxy) noteOlder(ctx context.Context) {
	p.older = map[ends]struct{}{}
	if _, err := p.sockets.DestroySockets(ctx, func(local, remote netip.AddrPort) bool {
		// Those that the pod opened are their destination's to decide on.
		if local.Port() < firstEphemeral || remote.Port() >= firstEphemeral {
			p.older[ends{local, remote}] = struct{}{}
		}
		return false
	}); err != nil {
		p.log.Warn("connections older than the enrolment were not listed: policy does not reach them", "err", err)
	}
}

// reviseOlder resets the older connections that policy denies: what is in them
// is plain, and nobody proved who sends it. Only watch calls it.
func (p *Proxy) reviseOlder(ctx context.Context, policies []*mesh.Policy) {
	denied := map[ends]struct{}{}
	for e := range p.older {
		if !authz.Evaluate(policies, authz.Conn{SourceIP: e.remote.Addr(), Destination: e.local}).Allow {
			denied[e] = struct{}{}
		}
	}
	if len(denied) == 0 {
		return
	}
	n, err := p.sockets.DestroySockets(ctx, func(local, remote netip.AddrPort) bool {
		_, is := denied[ends{local, remote}]
		return is
	})
	if err != nil {
		p.log.Warn("connections older than the enrolment were not all reset, though policy denies them", "err", err)
		return
	}
	for e := range denied {
		delete(p.older, e)
	}
	if n > 0 {
		p.log.Info("connections older than the enrolment were reset: policy denies them", "count", n)
	}
}
