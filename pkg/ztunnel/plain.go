package ztunnel

import (
	"context"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// plain carries a plaintext connection to the pod, if policy lets it in: its peer
// proves nothing.
func (p *Proxy) plain(c *net.TCPConn, done func()) {
	source, dst := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	record := p.o.Recorder.Open(telemetry.Info{Direction: telemetry.Inbound, SourceAddr: source, DestinationAddr: dst})
	carry, err := p.admitPlain(c, source, dst, record)
	settle(record, carry, err, func(err error) {
		if err != nil {
			relay.Reset(c)
		}
		done()
	})
}

func (p *Proxy) admitPlain(c *net.TCPConn, source, dst netip.AddrPort, record *telemetry.Record) (carrier, error) {
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
	record.Resolve(func(i *telemetry.Info) { p.plainInfo(i, snapshot, self) })
	conn := authz.Conn{SourceIP: source.Addr(), Destination: dst}
	live, ctx := p.live.add(ctx, Live{
		Direction: telemetry.Inbound, Source: source, Original: dst, Actual: dst, Protocol: "TCP",
	}, stillAllowed(conn, record))
	return live.until(p.deliverPlain(ctx, c, live, self, conn, record))
}

func (p *Proxy) deliverPlain(ctx context.Context, c *net.TCPConn, live *liveConn, self *mesh.Workload, conn authz.Conn, record *telemetry.Record) (carrier, error) {
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
	carry, err := live.relay(c, app, record)
	if err != nil {
		relay.Reset(app)
		return nil, err
	}
	record.Established()
	return carry, nil
}

// plainInfo completes what is known of a plaintext connection to the pod.
func (p *Proxy) plainInfo(i *telemetry.Info, s *store.Snapshot, self *mesh.Workload) {
	i.Source, i.Destination = p.peerAt(s, i.SourceAddr.Addr(), mesh.Identity{}), self
	for _, svc := range s.ServicesOf(self) {
		if leadsTo(self, svc, i.DestinationAddr.Port()) {
			i.Service = svc
			return
		}
	}
}
