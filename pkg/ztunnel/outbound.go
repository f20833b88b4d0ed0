package ztunnel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// outbound carries a captured connection of the pod.
func (p *Proxy) outbound(c *net.TCPConn) {
	dst, err := p.sockets.OriginalDestination(c)
	if err != nil {
		p.log.Debug("connection to the capture's listener that was not captured", "from", c.RemoteAddr().String(), "err", err)
		relay.Reset(c)
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	record := p.o.Recorder.Open(telemetry.Info{
		Direction: telemetry.Outbound, SourceAddr: p.source(c, dst), DestinationAddr: dst,
	})
	err = p.carry(ctx, c, dst, record)
	if err != nil {
		relay.Reset(c)
	}
	record.Close(telemetry.Result{Err: err, Flag: flagOf(err)})
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

func (p *Proxy) carry(ctx context.Context, c *net.TCPConn, dst netip.AddrPort, record *telemetry.Record) error {
	client, snapshot, err := p.self(ctx)
	if err != nil && !errors.Is(err, errUnknownPod) {
		return err
	}
	if reserved(dst.Port()) && p.isOwn(dst.Addr()) {
		return errSelfCall
	}
	route, err := Decide(snapshot, client, p.o.Network, dst)
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination, i.Service = client, route.Workload, route.Service
		if route.Destination.IsValid() {
			i.DestinationAddr = route.Destination
		}
		if route.Tunnel {
			i.Authority = route.Authority.String()
		}
	})
	if err != nil {
		return err
	}
	if route.Tunnel {
		return p.tunnel(ctx, c, route, client, record)
	}
	out, err := p.sockets.Dial(ctx, route.Destination)
	if err != nil {
		return err
	}
	record.Established()
	done := p.live.add(Live{Direction: telemetry.Outbound, Source: p.source(c, dst), Original: dst, Actual: route.Destination, Protocol: "TCP"}, nil,
		func() { relay.Reset(c, out) })
	err = relay.Both(c, out, &record.ToServer, &record.ToClient)
	return errors.Join(done(), err)
}

func (p *Proxy) isOwn(a netip.Addr) bool {
	for _, own := range p.info.Addrs {
		if own == a {
			return true
		}
	}
	return a.IsLoopback()
}

func (p *Proxy) tunnel(ctx context.Context, c *net.TCPConn, route Route, client *mesh.Workload, record *telemetry.Record) error {
	host := ""
	if route.Service != nil {
		host = route.Service.Key.Hostname
	}
	source := record.Info().SourceAddr
	stream, err := p.pool.Open(ctx, hbone.Key{Source: p.id, Destination: route.Destination, Expected: hbone.JoinExpected(route.Expected)}, hbone.Headers{
		Authority: route.Authority, Baggage: baggageOf(client).String(), Forwarded: hbone.Forwarded(source, host), TraceParent: traceParent(),
	})
	if err != nil {
		return err
	}
	record.Resolve(func(i *telemetry.Info) {
		i.MutualTLS, i.SourceIdentity, i.DestinationIdentity = true, p.id, identity.Peer(*stream.Peer)
	})
	record.Established()
	done := p.live.add(Live{Direction: telemetry.Outbound, Source: source, Original: record.Info().DestinationAddr, Actual: route.Destination, Protocol: "HBONE"}, nil, stream.Abort)
	err = stream.Relay(c, &record.ToServer, &record.ToClient)
	return errors.Join(done(), err)
}

// baggageOf says who we are to the other side.
func baggageOf(w *mesh.Workload) hbone.Baggage {
	if w == nil {
		return hbone.Baggage{}
	}
	return hbone.Baggage{
		Cluster: w.Cluster, Namespace: w.Namespace, WorkloadType: w.WorkloadType, WorkloadName: w.WorkloadName,
		ServiceName: w.CanonicalName, ServiceVersion: w.CanonicalRevision, Region: w.Locality.Region, Zone: w.Locality.Zone,
	}
}

// traceParent is a new one (W3C Trace Context), not sampled.
func traceParent() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return "00-" + hex.EncodeToString(b[:16]) + "-" + hex.EncodeToString(b[16:]) + "-00"
}
