package ztunnel

import (
	"context"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// tunnelled answers a CONNECT to the pod.
func (p *Proxy) tunnelled(r *hbone.Request) {
	select {
	case p.incoming <- struct{}{}:
	default:
		r.Reject(503)
		p.open(r).Close(telemetry.Result{Err: errTooMany, Flag: flagOf(errTooMany)})
		return
	}
	record := p.open(r)
	carry, status, err := p.admit(r, record)
	if err != nil {
		r.Reject(status)
	}
	settle(record, carry, err, func(error) { <-p.incoming })
}

func (p *Proxy) open(r *hbone.Request) *telemetry.Record {
	return p.o.Recorder.Open(telemetry.Info{
		Direction: telemetry.Inbound, SourceAddr: r.Peer, DestinationAddr: r.Local, Authority: r.Authority.String(),
		MutualTLS: true, SourceIdentity: identity.Peer(*r.TLS), DestinationIdentity: p.id,
	})
}

// admit decides on a CONNECT, in the order of Istio's node proxy. status is what
// to reject it with if there is an error.
func (p *Proxy) admit(r *hbone.Request, record *telemetry.Record) (carry carrier, status int, err error) {
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	peer := identity.Peer(*r.TLS)
	if !p.isOwn(r.Local.Addr()) || r.Authority.Addr.IsValid() && r.Authority.Addr != r.Local.Addr() {
		return nil, 400, errIPMismatch
	}
	self, snapshot, err := p.self(ctx)
	if err != nil {
		return nil, 503, err
	}
	port, svc := p.upstream(snapshot, self, r)
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination, i.Service = p.peerAt(snapshot, r.Peer.Addr(), peer), self, svc
	})
	if port == 0 {
		return nil, 503, portError(r.Authority.Host, r.Authority.Port)
	}
	if reserved(port) {
		return nil, 503, errSelfCall
	}
	target := netip.AddrPortFrom(r.Local.Addr(), port)
	conn := authz.Conn{Source: peer, SourceIP: r.Peer.Addr(), Destination: target}
	live, ctx := p.live.add(ctx, Live{
		Direction: telemetry.Inbound, Source: r.Peer, Original: r.Local, Actual: target, Protocol: "HBONE",
	}, stillAllowed(conn, record))
	carry, status, err = p.deliver(ctx, r, live, self, conn, record)
	carry, err = live.until(carry, err)
	return carry, status, err
}

// deliver asserts policy and connects to the application; 200 only after that.
func (p *Proxy) deliver(ctx context.Context, r *hbone.Request, live *liveConn, self *mesh.Workload, conn authz.Conn, record *telemetry.Record) (carry carrier, status int, err error) {
	if err := p.allowed(ctx, self, conn, record); err != nil {
		return nil, 401, err
	}
	done, err := p.dialling(ctx)
	if err != nil {
		return nil, 503, err
	}
	app, err := p.sockets.DialApp(ctx, r.Peer.Addr(), conn.Destination)
	done()
	if err != nil {
		return nil, 503, err
	}
	// Closing the application's end aborts what is carried; the tunnel's is for
	// the case that the peer does not read.
	abort := r.Aborter()
	if err := live.carry(func() {
		relay.Reset(app)
		abort()
	}); err != nil {
		relay.Reset(app)
		return nil, 401, err
	}
	record.Established()
	baggage := baggageOf(self)
	return func(done func(error)) { r.Accept(app, baggage, &record.ToServer, &record.ToClient, done) }, 0, nil
}

// upstream is the pod's port that is asked for, or 0, and the service for the
// record: the named one, or what the caller says if it is one of the pod's, or
// the first that leads to the port.
func (p *Proxy) upstream(s *store.Snapshot, self *mesh.Workload, r *hbone.Request) (port uint16, svc *mesh.Service) {
	if host := r.Authority.Host; host != "" {
		svc := s.ServiceByHostname(host, self.Namespace)
		return portOf(self, svc, r.Authority.Port), svc
	}
	services := s.ServicesOf(self)
	if said := hbone.ForwardedHost(r.Forwarded); said != "" {
		for _, svc := range services {
			if svc.Key.Hostname == said {
				return r.Authority.Port, svc
			}
		}
	}
	for _, svc := range services {
		if leadsTo(self, svc, r.Authority.Port) {
			return r.Authority.Port, svc
		}
	}
	return r.Authority.Port, nil
}

// portOf is the port that the pod listens on for a service's, or 0: the pod must
// be one of its endpoints.
func portOf(self *mesh.Workload, svc *mesh.Service, port uint16) uint16 {
	if svc == nil {
		return 0
	}
	own, serves := self.Services[svc.Key]
	for _, o := range own {
		if o.Service == port && o.Target != 0 {
			return o.Target
		}
	}
	if p, ok := svc.Port(port); ok && serves {
		return p.Target
	}
	return 0
}

// leadsTo reports whether a port of the service leads to the pod's port.
func leadsTo(self *mesh.Workload, svc *mesh.Service, port uint16) bool {
	for _, p := range svc.Ports {
		if portOf(self, svc, p.Service) == port {
			return true
		}
	}
	return false
}
