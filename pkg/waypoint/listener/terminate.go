package listener

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// TerminateOptions are those of a listener for tunnels.
type TerminateOptions struct {
	// TLS proves who we are and asks who calls. It must be non-nil.
	TLS *tls.Config
	// Self is the SPIFFE id that TLS proves, or "".
	Self string
	// Filters look at each CONNECT, such as to keep who called. They may be none.
	Filters func() []filter.Filter
	// Target is the table that serves what comes out of a tunnel, or nil: not here yet.
	Target func() *Table
	// Source is the workload at an address, as far as it is known, or nil.
	Source func(a netip.Addr) *streaminfo.Workload
	HTTP2  h2.Config
	// MaxConnections bounds the tunnels; zero is hbone's default.
	MaxConnections int
	Guard          *guard.Guard // or nil
	Logger         *slog.Logger // must be non-nil
}

// Terminate ends tunnels and has their contents served.
type Terminate struct {
	o      TerminateOptions
	server *hbone.Server
	early  atomic.Int64 // connections that wait for configuration
	inner  *quota       // connections within the tunnels
}

// NewTerminate makes a listener; Serve it.
func NewTerminate(o TerminateOptions) (*Terminate, error) {
	t := &Terminate{o: o, inner: newQuota(maxInner)}
	var err error
	t.server, err = hbone.NewServer(hbone.ServerOptions{
		TLS: o.TLS, Handle: t.handle, MaxConnections: o.MaxConnections, HTTP2: o.HTTP2, Logger: o.Logger,
		Failed: func(peer netip.AddrPort, err error) {
			o.Logger.Info("tunnel refused in its handshake", "peer", peer.String(), "err", err)
		},
	})
	return t, err
}

// Serve accepts until the socket is closed.
func (t *Terminate) Serve(l net.Listener) error { return t.server.Serve(l) }

// Active is how many tunnels are open.
func (t *Terminate) Active() int64 { return int64(t.server.Active()) }

// Drain takes no new tunnels and waits for those there are, until ctx ends.
func (t *Terminate) Drain(ctx context.Context) { t.server.Drain(ctx) }

// The keys under which Envoy's filters find the ends of a connection.
const (
	stateLocal     = "envoy.filters.listener.original_dst.local_ip"
	stateRemote    = "envoy.filters.listener.original_dst.remote_ip"
	stateAuthority = "io.istio.connect_authority"
	statePeer      = "io.istio.peer_principal"
	stateSelf      = "io.istio.local_principal"
)

// handle serves one CONNECT. What nothing serves is refused with a status, where Envoy
// would accept it first.
func (t *Terminate) handle(r *hbone.Request) {
	peer := r.Peer.Addr()
	if !t.inner.enter(peer) {
		r.Reject(503)
		return
	}
	var info *streaminfo.Connection
	carry(t.o.Guard, "a tunnelled connection", func() error {
		info = t.connection(r)
		return t.serve(r, info)
	}, func(err error) {
		t.inner.leave(peer)
		if err != nil {
			t.o.Logger.Debug("connection ended", "authority", info.Authority, "peer", info.PeerURISAN, "chain", info.Chain, "err", err)
		}
	})
}

func (t *Terminate) serve(r *hbone.Request, info *streaminfo.Connection) error {
	table := t.await(info)
	if table == nil {
		t.o.Logger.Debug("CONNECT to what is not served here", "authority", info.Authority, "peer", info.PeerURISAN)
		r.Reject(503)
		return nil
	}
	if status := t.filter(r, info); status != 0 {
		r.Reject(status)
		return nil
	}
	if info.Source == nil {
		info.Source = streaminfo.FromState(info.FilterState)
	}
	conn, err := r.AcceptStream("")
	if err != nil {
		return nil //nolint:nilerr // the tunnel is gone
	}
	return table.Serve(conn, info)
}

// Who sends a connection may have heard of this waypoint before the waypoint hears of what
// it asks for: such connections wait, as many as that and as long.
const (
	maxEarly    = 1_000
	earlyWait   = 3 * time.Second
	earlyPeriod = 10 * time.Millisecond
)

// await is the table that serves what is asked for, or nil.
func (t *Terminate) await(info *streaminfo.Connection) *Table {
	var looked *Table // in vain
	known := func() *Table {
		table := t.o.Target()
		if table == nil || table == looked {
			return nil
		}
		if table.Known(info.Local, info.Authority) {
			return table
		}
		looked = table
		return nil
	}
	if table := known(); table != nil {
		return table
	}
	if t.early.Add(1) > maxEarly {
		t.early.Add(-1)
		return nil
	}
	defer t.early.Add(-1)
	late := time.NewTimer(earlyWait)
	defer late.Stop()
	look := time.NewTicker(earlyPeriod)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			if table := known(); table != nil {
				return table
			}
		case <-late.C:
			return nil
		}
	}
}

// connection is what is known of the connection inside a tunnel.
func (t *Terminate) connection(r *hbone.Request) *streaminfo.Connection {
	info := &streaminfo.Connection{
		ID: connections.Add(1), LocalURISAN: t.o.Self, Remote: r.Peer, DirectRemote: r.Peer, Authority: r.Authority.String(), TLS: r.TLS, Tunnelled: true,
		Local: netip.AddrPortFrom(r.Authority.Addr, r.Authority.Port),
	}
	if len(r.TLS.PeerCertificates) > 0 {
		if uris := r.TLS.PeerCertificates[0].URIs; len(uris) > 0 {
			info.PeerURISAN = uris[0].String()
		}
	}
	info.FilterState = map[string]string{
		stateLocal: info.Authority, stateAuthority: info.Authority, stateRemote: r.Peer.String(), statePeer: info.PeerURISAN,
		stateSelf: info.LocalURISAN,
	}
	if t.o.Source != nil {
		info.Source = t.o.Source(r.Peer.Addr())
	}
	return info
}

// filter runs the tunnel's own HTTP filters on the CONNECT; a status other than 0
// refuses it.
func (t *Terminate) filter(r *hbone.Request, c *streaminfo.Connection) int {
	if t.o.Filters == nil {
		return 0
	}
	request := &message.Request{Version: message.HTTP2, Method: "CONNECT", Authority: c.Authority}
	for _, b := range r.Baggage {
		request.Fields.Add("baggage", b)
	}
	if r.TraceParent != "" {
		request.Fields.Add("traceparent", r.TraceParent)
	}
	if r.Forwarded != "" {
		request.Fields.Add("forwarded", r.Forwarded)
	}
	info := &streaminfo.Info{Connection: c, Start: time.Now(), Request: request}
	x := &filter.Context{Info: info, Request: request, Config: func(string) any { return nil }, Gone: func() bool { return false }, ClearRoute: func() {}}
	defer x.End()
	for _, f := range t.o.Filters() {
		if reply := f.Request(x); reply != nil {
			if reply.Status == 0 {
				return 503
			}
			return reply.Status
		}
	}
	c.FilterState = info.FilterState // what the tunnel's filters keep is the connection's
	return 0
}
