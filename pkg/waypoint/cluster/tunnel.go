package cluster

import (
	"context"
	"crypto/tls"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// tunnelStream is a tunnel's stream.
type tunnelStream struct{ *h2.Stream }

// Gone reports of an idle connection that the other side has ended it, or has sent
// what nobody asked for.
func (s tunnelStream) Gone() bool { return s.Err() != nil || s.Ready() }

// Over opens tunnels' streams for [Options] from a pool, as source. The pool's TLS
// configuration must check that one of the key's expected ids answers.
func Over(p *hbone.Pool, source mesh.Identity, baggage string) func(context.Context, Tunnel) (codec.Conn, *tls.ConnectionState, error) {
	return func(ctx context.Context, t Tunnel) (codec.Conn, *tls.ConnectionState, error) {
		key := hbone.Key{Source: source, Destination: t.Socket, Expected: hbone.JoinExpected(t.Expected)}
		s, err := p.Open(ctx, key, hbone.Headers{Authority: hbone.Authority{Addr: t.Authority.Addr(), Port: t.Authority.Port()}, Baggage: baggage})
		if err != nil {
			return nil, nil, err
		}
		return tunnelStream{s.Conn()}, s.Peer, nil
	}
}
