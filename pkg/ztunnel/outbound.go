package ztunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// outbound carries a captured connection of the pod. Whatever fails, the
// application sees a reset: an end in order would be a lie.
func (p *Proxy) outbound(c *net.TCPConn, done func()) {
	end := func(err error) {
		if err != nil {
			relay.Reset(c)
		}
		done()
	}
	dst, err := p.sockets.OriginalDestination(c)
	if err != nil {
		p.log.Debug("connection to the capture's listener that was not captured", "from", c.RemoteAddr().String(), "err", err)
		end(err)
		return
	}
	source := p.source(c, dst)
	record := p.o.Recorder.Open(telemetry.Info{Direction: telemetry.Outbound, SourceAddr: source, DestinationAddr: dst})
	carry, err := p.carry(c, source, dst, record)
	settle(record, carry, err, end)
}

// source is the client's end as the network would see it.
func (p *Proxy) source(c *net.TCPConn, dst netip.AddrPort) netip.AddrPort {
	port := addrPort(c.RemoteAddr()).Port()
	for _, a := range p.info.Addrs {
		if a.Is4() == dst.Addr().Is4() {
			return netip.AddrPortFrom(a, port)
		}
	}
	return addrPort(c.RemoteAddr())
}

func (p *Proxy) carry(c *net.TCPConn, source, dst netip.AddrPort, record *telemetry.Record) (carrier, error) {
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	if reserved(dst.Port()) && (dst.Addr().IsLoopback() || p.isOwn(dst.Addr())) {
		return nil, errSelfCall
	}
	client, snapshot, err := p.self(ctx)
	if err != nil && !errors.Is(err, errUnknownPod) {
		return nil, err // a pod that is not known yet may call: who it is, its creator said
	}
	route, err := Decide(snapshot, client, p.o.Network, dst)
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination, i.Service = client, route.Workload, route.Service
		if route.Destination.Addr().IsValid() {
			i.DestinationAddr = route.Destination
		}
		if route.Tunnel {
			i.Authority = route.Authority.String()
		}
	})
	if err != nil {
		return nil, err
	}
	live := Live{Direction: telemetry.Outbound, Source: source, Original: dst, Actual: route.Destination, Protocol: "TCP"}
	if route.Tunnel {
		live.Protocol = "HBONE"
		conn, ctx := p.live.add(ctx, live, samePeer(route.Workload))
		return conn.until(p.throughTunnel(ctx, c, conn, route, client, record))
	}
	conn, ctx := p.live.add(ctx, live, nil)
	return conn.until(p.throughPlain(ctx, c, conn, route, dst, record))
}

func (p *Proxy) throughPlain(ctx context.Context, c *net.TCPConn, conn *liveConn, route Route, dst netip.AddrPort, record *telemetry.Record) (carrier, error) {
	done, err := p.dialling(ctx)
	if err != nil {
		return nil, err
	}
	to := route.Destination
	if !to.Addr().IsValid() {
		var a netip.Addr
		if a, err = p.names.find(ctx, route.Workload.Hostname, dst.Addr().Is6()); err == nil {
			to = netip.AddrPortFrom(a, to.Port())
			record.Resolve(func(i *telemetry.Info) { i.DestinationAddr = to })
		}
	}
	var out *net.TCPConn
	if err == nil {
		out, err = p.sockets.Dial(ctx, to)
	}
	done()
	if err != nil {
		return nil, err
	}
	carry, err := conn.relay(c, out, record)
	if err != nil {
		relay.Reset(out)
		return nil, err
	}
	record.Established()
	return carry, nil
}

func (p *Proxy) throughTunnel(ctx context.Context, c *net.TCPConn, conn *liveConn, route Route, client *mesh.Workload, record *telemetry.Record) (carrier, error) {
	stream, err := p.openTunnel(ctx, route, client, record.Info().SourceAddr)
	if err != nil {
		return nil, err
	}
	record.Resolve(func(i *telemetry.Info) {
		i.MutualTLS, i.SourceIdentity, i.DestinationIdentity = true, p.id, identity.Peer(*stream.Peer)
	})
	if err := conn.carry(func() {
		relay.Reset(c)
		stream.Abort()
	}); err != nil {
		stream.Abort()
		return nil, err
	}
	record.Established()
	return func(done func(error)) { stream.Relay(c, &record.ToServer, &record.ToClient, done) }, nil
}

func (p *Proxy) openTunnel(ctx context.Context, route Route, client *mesh.Workload, source netip.AddrPort) (*hbone.Stream, error) {
	done, err := p.dialling(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	// Asked for here so that its absence is not taken for the other side's fault.
	if _, err := p.o.Certificates.Get(ctx, p.id); err != nil {
		return nil, fmt.Errorf("%w: %w", errCertificate, err)
	}
	host := ""
	if route.Service != nil {
		host = route.Service.Key.Hostname
	}
	return p.pool.Open(ctx, hbone.Key{Source: p.id, Destination: route.Destination, Expected: hbone.JoinExpected(route.Expected)}, hbone.Headers{
		Authority: route.Authority, Baggage: baggageOf(client), Forwarded: hbone.Forwarded(source, host), TraceParent: traceParent(),
	})
}
