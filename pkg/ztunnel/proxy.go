package ztunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Proxy serves the connections of one pod.
type Proxy struct {
	// Constant after New.
	o       Options
	info    PodInfo
	id      mesh.Identity
	sockets PodSockets
	pool    *hbone.Pool
	server  *hbone.Server
	names   *names
	log     *slog.Logger
	live    *liveSet

	// Places of the pod's quotas: full channels refuse.
	outgoing, incoming, dials chan struct{}

	// ctx ends when the last connection has; stopping closes when no new ones
	// are taken.
	ctx      context.Context
	cancel   context.CancelFunc
	stopping chan struct{}
	stop     sync.Once
	accepts  sync.WaitGroup
	conns    sync.WaitGroup

	// joining guards closed: no connection of another agent's is taken any more.
	joining sync.Mutex
	closed  bool

	// Owned by watch.
	older map[ends]struct{}
}

// New begins to serve a pod. It asks for the pod's certificate at once. Call
// Drain to end it.
func New(o Options, info PodInfo, sockets PodSockets) (*Proxy, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	p := &Proxy{
		o: o, info: info, sockets: sockets, names: newNames(o.Resolve), live: newLiveSet(), stopping: make(chan struct{}),
		id:       mesh.Identity{TrustDomain: o.TrustDomain, Namespace: info.Namespace, ServiceAccount: info.ServiceAccount},
		log:      o.Logger.With("pod", info.Namespace+"/"+info.Name),
		outgoing: make(chan struct{}, o.MaxConnections), incoming: make(chan struct{}, o.MaxConnections), dials: make(chan struct{}, o.MaxDials),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	o.Certificates.Acquire(p.id)
	if err := p.tunnels(); err != nil {
		p.cancel()
		o.Certificates.Release(p.id)
		return nil, err
	}
	if !info.TakenOver {
		p.noteOlder(p.ctx)
	}
	p.accepts.Go(func() {
		if !p.mayAccept() {
			return
		}
		p.accepts.Go(func() { p.accept(sockets.Outbound(), p.outgoing, p.outbound) })
		p.accepts.Go(func() { p.accept(sockets.InboundPlain(), p.incoming, p.plain) })
		if err := p.server.Serve(sockets.InboundHBONE()); err != nil {
			p.log.Error("tunnels are not taken any more", "err", err)
		}
	})
	// It goes on while connections drain: policy holds until their end.
	p.conns.Go(func() {
		p.watch(p.ctx)
	})
	return p, nil
}

func (p *Proxy) tunnels() (err error) {
	if p.pool, err = hbone.NewPool(hbone.PoolOptions{Dial: p.dialTunnel, TLS: func(k hbone.Key) *tls.Config {
		return p.o.Certificates.ClientTLS(k.Source, hbone.SplitExpected(k.Expected))
	}}); err != nil {
		return err
	}
	p.server, err = hbone.NewServer(hbone.ServerOptions{
		TLS: p.o.Certificates.ServerTLS(p.id), Handle: p.tunnelled, Logger: p.log, Failed: p.handshakeFailed,
	})
	return err
}

// dialTunnel says of a silent destination what usually makes it silent.
func (p *Proxy) dialTunnel(ctx context.Context, dst netip.AddrPort) (*net.TCPConn, error) {
	c, err := p.sockets.Dial(ctx, dst)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, errTunnelTimeout
	}
	return c, err
}

// handshakeFailed records a stranger at the tunnel's port.
func (p *Proxy) handshakeFailed(peer netip.AddrPort, err error) {
	local := netip.AddrPort{}
	for _, a := range p.info.Addrs {
		if a.Is4() == peer.Addr().Is4() {
			local = netip.AddrPortFrom(a, hbone.Port)
		}
	}
	record := p.o.Recorder.Open(telemetry.Info{Direction: telemetry.Inbound, SourceAddr: peer, DestinationAddr: local})
	record.Close(telemetry.Result{Err: err, Flag: telemetry.FlagTLS})
}

// mayAccept waits until connections may be taken, and reports whether they are to be.
func (p *Proxy) mayAccept() bool {
	if p.o.Accept == nil {
		return true
	}
	select {
	case <-p.o.Accept:
		return true
	case <-p.stopping:
		return false
	}
}

// accept serves a listener's connections until it is closed.
func (p *Proxy) accept(l net.Listener, places chan struct{}, serve func(c *net.TCPConn, done func())) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			p.log.Error("accept", "address", l.Addr().String(), "err", err)
			select { // such as too many open files: it may pass
			case <-time.After(50 * time.Millisecond):
				continue
			case <-p.stopping:
				return
			}
		}
		c := conn.(*net.TCPConn)
		select {
		case places <- struct{}{}:
		default:
			p.log.Warn("connection refused", "err", errTooMany)
			relay.Reset(c)
			continue
		}
		p.conns.Add(1)
		go serve(c, func() {
			<-places
			p.conns.Done()
		})
	}
}

// dialling takes a place among the pod's dials; call done when it is over.
func (p *Proxy) dialling(ctx context.Context) (done func(), err error) {
	select {
	case p.dials <- struct{}{}:
		return func() { <-p.dials }, nil
	case <-ctx.Done():
		return nil, errTooMany
	}
}

// Drain takes no new connections, and returns when those there are have ended;
// when ctx ends first, they are reset.
func (p *Proxy) Drain(ctx context.Context) {
	p.stop.Do(func() {
		p.joining.Lock()
		p.closed = true
		p.joining.Unlock()
		close(p.stopping)
		for _, l := range []net.Listener{p.sockets.Outbound(), p.sockets.InboundPlain(), p.sockets.InboundHBONE()} {
			_ = l.Close() // it may be closed already
		}
		p.accepts.Wait()
		force := context.AfterFunc(ctx, func() { p.live.closeAll(errStopped) })
		defer force()
		p.server.Drain(ctx)
		p.waitLive(ctx)
		p.pool.Close()
		p.cancel() // whoever is added later sees it
		p.live.closeAll(errStopped)
		p.conns.Wait()
		p.o.Certificates.Release(p.id)
	})
}

// waitLive returns when no connection is live, or ctx ends.
func (p *Proxy) waitLive(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(p.outgoing)+len(p.incoming) > 0 {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Connections lists what is live, for the admin page.
func (p *Proxy) Connections() []Live { return p.live.list() }

// Info is who the pod is.
func (p *Proxy) Info() PodInfo { return p.info }

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// reserved reports whether a port is the agent's own in a pod.
func reserved(port uint16) bool { return port == 15001 || port == 15006 || port == hbone.Port }
