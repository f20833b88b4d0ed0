package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Tunnel is what a stream of an HBONE tunnel is wanted for.
type Tunnel struct {
	// Socket is the tunnel's other end, Authority the destination that the CONNECT
	// names.
	Socket, Authority netip.AddrPort
	// Expected are the SPIFFE ids that may answer, sorted; there is at least one. One
	// that ends in "*" stands for all that begin so.
	Expected []string
}

// originateCluster is the cluster whose validation context istiod gives for all
// tunnels.
const originateCluster = "connect_originate"

// dial makes a connection to a host and says who answers.
func (c *Cluster) dial(ctx context.Context, h *Host, set *pools, o *OpenOptions) (codec.Conn, Connected, error) {
	m := c.manager
	var raw codec.Conn
	var info Connected
	var err error
	switch {
	case h.tunnel.listener != "":
		raw, info.TLS, err = m.tunnel(ctx, h)
	case c.snap.Load().spec.discovery == internalOnly:
		err = fmt.Errorf("cluster %s leads to the waypoint's own listener", c.name)
	default:
		raw, err = m.o.Dial(ctx, h.Dial)
	}
	if err != nil {
		return nil, info, err
	}
	if k := set.link.keepalive; k.Enable {
		if t, ok := raw.(interface {
			SetKeepAliveConfig(net.KeepAliveConfig) error
		}); ok {
			_ = t.SetKeepAliveConfig(k) // best effort, as Envoy's
		}
	}
	info.Remote, info.Local = streaminfo.AddrPort(raw.RemoteAddr()), streaminfo.AddrPort(raw.LocalAddr())
	if deadline, ok := ctx.Deadline(); ok {
		_ = raw.SetDeadline(deadline)
	}
	if p := set.socket.proxy; p != nil {
		if err = p.write(raw, o.Source, o.Destination); err != nil {
			_ = raw.Close()
			return nil, info, fmt.Errorf("send the PROXY header: %w", err)
		}
	}
	if s := set.socket.secure; s != nil {
		secured, state, err := s.handshake(ctx, raw, h, o.ServerName, set.link.protocol)
		if err != nil {
			c.stats.sslError.Add(1)
			_ = raw.Close()
			return nil, info, err
		}
		c.stats.sslHandshake.Add(1)
		raw, info.TLS = secured, state
	}
	_ = raw.SetDeadline(time.Time{})
	info.PeerURISAN = peerURI(info.TLS)
	return raw, info, nil
}

// tunnel opens a stream of the tunnel to a host.
func (m *Manager) tunnel(ctx context.Context, h *Host) (codec.Conn, *tls.ConnectionState, error) {
	if m.o.Tunnel == nil {
		return nil, nil, errors.New("this process has no tunnels")
	}
	t := Tunnel{Socket: netip.AddrPortFrom(h.Dial.Addr(), hbone.Port), Authority: h.Dial}
	if err := m.expect(&t, h); err != nil {
		return nil, nil, err
	}
	return m.o.Tunnel(ctx, t)
}

// expect says who may answer: what the control plane knows of the address, else the
// endpoint's own service account, else what the tunnels' cluster allows.
func (m *Manager) expect(t *Tunnel, h *Host) error {
	if m.o.Expected != nil {
		if t.Expected = m.o.Expected(h.Dial); len(t.Expected) > 0 {
			return nil
		}
	}
	if name := h.tunnel.originate; name != "" {
		namespace, account, ok := strings.Cut(strings.TrimPrefix(name, "originate/"), "/")
		if !ok || !strings.HasPrefix(name, "originate/") || namespace == "" || account == "" || m.o.TrustDomain == "" {
			return fmt.Errorf("metadata mesh/originate of %s: %q is not originate/<namespace>/<service account>", h.Address, name)
		}
		t.Expected = []string{"spiffe://" + m.o.TrustDomain + "/ns/" + namespace + "/sa/" + account}
		return nil
	}
	if c := m.Get(originateCluster); c != nil {
		if s := c.snap.Load().spec.link.sockets.first.secure; s != nil {
			t.Expected = s.identities()
		}
	}
	if len(t.Expected) == 0 {
		return fmt.Errorf("nothing says who may answer for %s: neither the workload, nor the endpoint's metadata mesh/originate, nor the cluster %s", h.Dial, originateCluster)
	}
	return nil
}

// statusOf is the status of a refused CONNECT, or 0.
func statusOf(err error) int {
	var s *hbone.StatusError
	if errors.As(err, &s) {
		return s.Status
	}
	return 0
}

func peerURI(s *tls.ConnectionState) string {
	if s == nil || len(s.PeerCertificates) == 0 || len(s.PeerCertificates[0].URIs) == 0 {
		return ""
	}
	return s.PeerCertificates[0].URIs[0].String()
}

// OpenTCP is a connection for a TCP proxy. Closing it gives its place back. Errors
// are those of Open.
func (c *Cluster) OpenTCP(h *Host, o OpenOptions) (codec.Conn, Connected, error) {
	set := c.poolsOf(h)
	if !c.connection(o.Priority, false) {
		return nil, Connected{}, ErrOverflow
	}
	h.connecting()
	start := time.Now()
	bound := start.Add(set.link.connectTimeout)
	own := o.Deadline.IsZero() || bound.Before(o.Deadline)
	if !own {
		bound = o.Deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), bound)
	defer cancel()
	raw, info, err := c.dial(ctx, h, set, &o)
	if err != nil {
		h.disconnected()
		c.breakers[o.Priority].connections.Add(-1)
		if ctx.Err() != nil && !own {
			return nil, info, ErrTimeout
		}
		c.stats.cxConnectFail.Add(1)
		h.stats.cxConnectFail.Add(1)
		if ctx.Err() != nil {
			c.stats.cxConnectTimeout.Add(1)
		}
		return nil, info, &ConnectError{Host: h.Address, Status: statusOf(err), Timeout: ctx.Err() != nil, Err: err}
	}
	info.Duration = time.Since(start)
	c.stats.cxConnect.Observe(info.Duration)
	h.active.Add(1)
	h.stats.rqTotal.Add(1)
	c.stats.rqTotal.Add(1)
	return &tcpConn{Conn: raw, host: h, priority: o.Priority}, info, nil
}
