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
	"github.com/fairlead-mesh/fairlead/pkg/store"
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
	log     *slog.Logger
	live    *liveSet
	slots   chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	accepts sync.WaitGroup
	conns   sync.WaitGroup
}

// New begins to serve a pod. It asks for the pod's certificate at once.
func New(o Options, info PodInfo, sockets PodSockets) (*Proxy, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	p := &Proxy{
		o: o, info: info, sockets: sockets, slots: make(chan struct{}, maxConnections),
		id:  mesh.Identity{TrustDomain: o.TrustDomain, Namespace: info.Namespace, ServiceAccount: info.ServiceAccount},
		log: o.Logger.With("pod", info.Namespace+"/"+info.Name),
	}
	p.live = newLiveSet()
	p.ctx, p.cancel = context.WithCancel(context.Background())
	o.Certificates.Acquire(p.id)
	var err error
	p.pool, err = hbone.NewPool(hbone.PoolOptions{Dial: sockets.Dial, TLS: func(k hbone.Key) *tls.Config {
		return o.Certificates.ClientTLS(k.Source, hbone.SplitExpected(k.Expected))
	}})
	if err == nil {
		p.server, err = hbone.NewServer(hbone.ServerOptions{TLS: o.Certificates.ServerTLS(p.id), Handle: p.tunnelled, Logger: p.log, Failed: func(peer netip.AddrPort, err error) {
			p.log.Debug("tunnel refused", "peer", peer.String(), "err", err)
		}})
	}
	if err != nil {
		p.cancel()
		o.Certificates.Release(p.id)
		return nil, err
	}
	p.accepts.Go(func() { p.accept(sockets.Outbound(), p.outbound) })
	p.accepts.Go(func() { p.accept(sockets.InboundPlain(), p.plain) })
	p.accepts.Go(func() {
		if err := p.server.Serve(sockets.InboundHBONE()); err != nil {
			p.log.Error("tunnels are not taken any more", "err", err)
		}
	})
	p.accepts.Go(p.watch)
	return p, nil
}

// accept serves a listener's connections until it is closed.
func (p *Proxy) accept(l net.Listener, serve func(*net.TCPConn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || p.ctx.Err() != nil {
				return
			}
			p.log.Error("accept", "address", l.Addr().String(), "err", err)
			select { // such as too many open files: it may pass
			case <-time.After(50 * time.Millisecond):
				continue
			case <-p.ctx.Done():
				return
			}
		}
		c := conn.(*net.TCPConn)
		select {
		case p.slots <- struct{}{}:
		default:
			p.log.Warn("connection refused", "err", errTooMany)
			relay.Reset(c)
			continue
		}
		p.conns.Go(func() {
			defer func() { <-p.slots }()
			serve(c)
		})
	}
}

// Drain stops accepting and lets connections end until ctx does; then they are
// reset. Close the pod's sockets first.
func (p *Proxy) Drain(ctx context.Context) {
	p.cancel()
	p.server.Drain(ctx)
	p.pool.Drain()
	ended := make(chan struct{})
	go func() {
		p.conns.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		p.live.closeAll(errDraining)
		p.pool.Close()
		<-ended
	}
	p.accepts.Wait()
	p.o.Certificates.Release(p.id)
}

// Connections lists what is live, for the admin page.
func (p *Proxy) Connections() []Live { return p.live.list() }

// Info is who the pod is.
func (p *Proxy) Info() PodInfo { return p.info }

// self is the pod's own workload as the control plane has it. A pod that is so
// new that it is not known is waited for.
func (p *Proxy) self(ctx context.Context) (*mesh.Workload, *store.Snapshot, error) {
	select {
	case <-p.o.Ready:
	case <-ctx.Done():
		return nil, nil, errNoState
	}
	timer := time.NewTimer(workloadWait)
	defer timer.Stop()
	for {
		s := p.o.State.Snapshot()
		for _, a := range p.info.Addrs {
			w := s.WorkloadByAddr(mesh.NewNetworkAddr(p.o.Network, a))
			// The address may still be another pod's, of before.
			if w != nil && w.Name == p.info.Name && w.Namespace == p.info.Namespace {
				return w, s, nil
			}
		}
		select {
		case <-s.Changed():
		case <-timer.C:
			return nil, s, errUnknownPod
		case <-ctx.Done():
			return nil, s, errUnknownPod
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}
