package ztunnel

import (
	"context"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// plain carries a plaintext connection to the pod, if policy lets it in: its peer
// proves nothing.
func (p *Proxy) plain(c *net.TCPConn) {
	e := apart(func() (e established) {
		source, dst := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
		e.record = p.o.Recorder.Open(telemetry.Info{Direction: telemetry.Inbound, SourceAddr: source, DestinationAddr: dst})
		e.relay, e.err = p.admitPlain(c, source, dst, e.record)
		return e
	})
	if e.finish() != nil {
		relay.Reset(c)
	}
}

func (p *Proxy) admitPlain(c *net.TCPConn, source, dst netip.AddrPort, record *telemetry.Record) (func() error, error) {
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	switch {
	case !p.isOwn(dst.Addr()):
		return nil, errNotOurs
	case reserved(dst.Port()):
		return nil, errSelfCall
	}
	self, snapshot, err := p.self(ctx)
	if err != nil {
		return nil, err
	}
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination = p.peerAt(snapshot, source.Addr(), mesh.Identity{}), self
		for _, svc := range snapshot.ServicesOf(self) {
			if leadsTo(self, svc, dst.Port()) {
				i.Service = svc
				break
			}
		}
	})
	conn := authz.Conn{SourceIP: source.Addr(), Destination: dst}
	live, ctx := p.live.add(ctx, Live{
		Direction: telemetry.Inbound, Source: source, Original: dst, Actual: dst, Protocol: "TCP",
	}, stillAllowed(conn, record))
	return live.until(p.deliverPlain(ctx, c, live, self, conn, record))
}

func (p *Proxy) deliverPlain(ctx context.Context, c *net.TCPConn, live *liveConn, self *mesh.Workload, conn authz.Conn, record *telemetry.Record) (func() error, error) {
	if err := p.allowed(ctx, self, conn, record); err != nil {
		return nil, err
	}
	done, err := p.dialling(ctx)
	if err != nil {
		return nil, err
	}
	app, err := p.sockets.DialApp(ctx, conn.SourceIP, conn.Destination)
	done()
	if err != nil {
		return nil, err
	}
	if err := live.carry(func() { relay.Reset(c, app) }); err != nil {
		relay.Reset(app)
		return nil, err
	}
	record.Established()
	return func() error { return relay.Both(c, app, &record.ToServer, &record.ToClient) }, nil
}
