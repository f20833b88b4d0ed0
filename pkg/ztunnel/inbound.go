package ztunnel

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// tunnelled answers a CONNECT to the pod.
func (p *Proxy) tunnelled(r *hbone.Request) {
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	peer := identity.Peer(*r.TLS)
	record := p.o.Recorder.Open(telemetry.Info{
		Direction: telemetry.Inbound, SourceAddr: r.Peer, DestinationAddr: r.Local, Authority: r.Authority.String(),
		MutualTLS: true, SourceIdentity: peer, DestinationIdentity: p.id,
	})
	status, err := p.admit(ctx, r, peer, record)
	if status != 0 {
		r.Reject(status)
	}
	record.Close(telemetry.Result{Err: err, Flag: flagOf(err)})
}

// admit decides on a CONNECT and carries it; status is what to reject it with, or
// 0 when it was accepted.
func (p *Proxy) admit(ctx context.Context, r *hbone.Request, peer mesh.Identity, record *telemetry.Record) (status int, err error) {
	if r.Authority.Addr.IsValid() && r.Authority.Addr != r.Local.Addr() {
		return 400, errIPMismatch
	}
	self, snapshot, err := p.self(ctx)
	if err != nil {
		return 503, err
	}
	port := r.Authority.Port
	var svc *mesh.Service
	if r.Authority.Host != "" {
		svc = snapshot.ServiceByHostname(r.Authority.Host, self.Namespace)
		if port = portOf(self, svc, r.Authority.Port); port == 0 {
			return 503, errors.New("requested service " + r.Authority.Host + " found, but cannot resolve port")
		}
	} else {
		svc = p.serviceOf(r, self, port)
	}
	if reserved(port) {
		return 503, errSelfCall
	}
	target := netip.AddrPortFrom(r.Local.Addr(), port)
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination, i.Service = snapshot.WorkloadByAddr(mesh.NewNetworkAddr(p.o.Network, r.Peer.Addr())), self, svc
	})
	conn := authz.Conn{Source: peer, SourceIP: r.Peer.Addr(), Destination: target}
	var app *net.TCPConn
	// Registered before it is decided on: a change of policy in between is seen.
	done := p.live.add(Live{Direction: telemetry.Inbound, Source: r.Peer, Original: r.Local, Actual: target, Protocol: "HBONE"}, &conn, r.Abort)
	if err := p.allowed(ctx, self, conn, record); err != nil {
		return 401, errors.Join(done(), err)
	}
	if app, err = p.sockets.DialApp(ctx, r.Peer.Addr(), target); err != nil {
		return 503, errors.Join(done(), err)
	}
	record.Established()
	err = r.Accept(app, baggageOf(self).String(), &record.ToServer, &record.ToClient)
	return 0, errors.Join(done(), err)
}

// portOf is the port that the pod listens on for a service's, or 0.
func portOf(self *mesh.Workload, svc *mesh.Service, port uint16) uint16 {
	if svc == nil {
		return 0
	}
	for _, own := range self.Services[svc.Key] {
		if own.Service == port && own.Target != 0 {
			return own.Target
		}
	}
	if p, ok := svc.Port(port); ok {
		return p.Target
	}
	return 0
}

// serviceOf is the service that was asked for, for the record: what the caller
// says, if it is one of the pod's, else the first that leads to the port.
func (p *Proxy) serviceOf(r *hbone.Request, self *mesh.Workload, port uint16) *mesh.Service {
	said := hbone.ForwardedHost(r.Forwarded)
	services := p.o.State.Snapshot().ServicesOf(self)
	for _, s := range services {
		if s.Key.Hostname == said {
			return s
		}
	}
	for _, s := range services {
		for _, own := range self.Services[s.Key] {
			if own.Target == port {
				return s
			}
		}
	}
	return nil
}

// plain carries a plaintext connection to the pod, if policy lets it in.
func (p *Proxy) plain(c *net.TCPConn) {
	ctx, cancel := context.WithTimeout(p.ctx, connectTimeout)
	defer cancel()
	source, dst := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	record := p.o.Recorder.Open(telemetry.Info{Direction: telemetry.Inbound, SourceAddr: source, DestinationAddr: dst})
	err := p.carryPlain(ctx, c, source, dst, record)
	if err != nil {
		relay.Reset(c)
	}
	record.Close(telemetry.Result{Err: err, Flag: flagOf(err)})
}

func (p *Proxy) carryPlain(ctx context.Context, c *net.TCPConn, source, dst netip.AddrPort, record *telemetry.Record) error {
	self, snapshot, err := p.self(ctx)
	if err != nil {
		return err
	}
	record.Resolve(func(i *telemetry.Info) {
		i.Source, i.Destination = snapshot.WorkloadByAddr(mesh.NewNetworkAddr(p.o.Network, source.Addr())), self
	})
	if reserved(dst.Port()) {
		return errSelfCall
	}
	conn := authz.Conn{SourceIP: source.Addr(), Destination: dst}
	done := p.live.add(Live{Direction: telemetry.Inbound, Source: source, Original: dst, Actual: dst, Protocol: "TCP"}, &conn, func() { relay.Reset(c) })
	if err := p.allowed(ctx, self, conn, record); err != nil {
		return errors.Join(done(), err)
	}
	app, err := p.sockets.DialApp(ctx, source.Addr(), dst)
	if err != nil {
		return errors.Join(done(), err)
	}
	record.Established()
	err = relay.Both(c, app, &record.ToServer, &record.ToClient)
	return errors.Join(done(), err)
}

// allowed decides with the policies of the moment; those that are named and not
// here are waited for, briefly.
func (p *Proxy) allowed(ctx context.Context, self *mesh.Workload, conn authz.Conn, record *telemetry.Record) error {
	_, policies, _ := p.o.State.WaitPolicies(ctx, self)
	d := authz.Evaluate(policies, conn)
	record.Decided(d.Policy, d.Reason)
	if d.Allow {
		return nil
	}
	return deniedBy(d)
}

// deniedError carries the decision's words.
type deniedError struct{ authz.Decision }

func (e *deniedError) Error() string {
	if e.Policy != "" {
		return errDenied.Error() + " " + e.Policy
	}
	return errDenied.Error() + ": " + e.Reason
}

func (e *deniedError) Unwrap() error { return errDenied }

func deniedBy(d authz.Decision) error { return &deniedError{d} }

// watch decides again on live connections whenever the state changes.
func (p *Proxy) watch() {
	for {
		s := p.o.State.Snapshot()
		select {
		case <-s.Changed():
		case <-p.ctx.Done():
			return
		}
		self, now, err := p.self(p.ctx)
		if err != nil {
			continue
		}
		policies, _ := now.Policies(self)
		p.live.revise(func(c authz.Conn) error {
			if d := authz.Evaluate(policies, c); !d.Allow {
				return errPolicyChange
			}
			return nil
		})
	}
}

// ResetOlder resets the pod's connections from before its enrolment that policy
// denies; it returns how many.
func (p *Proxy) ResetOlder(ctx context.Context) (int, error) {
	self, _, err := p.self(ctx)
	if err != nil {
		return 0, err
	}
	_, policies, _ := p.o.State.WaitPolicies(ctx, self)
	return p.sockets.DestroySockets(ctx, func(local, remote netip.AddrPort) bool {
		return !authz.Evaluate(policies, authz.Conn{SourceIP: remote.Addr(), Destination: local}).Allow
	})
}
