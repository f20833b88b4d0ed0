package waypoint

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/chain"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/listener"
)

// drainTimeout bounds how long connections of a listener that was removed go on.
const drainTimeout = 30 * time.Second

// setSocket takes a listener with a port.
func (e *Engine) setSocket(c *listenerv3.Listener, old *listening) error {
	if m, target := tunnelOf(c); m != nil {
		return e.setTunnel(c, old, m, target)
	}
	l, err := e.listeningAt(c, old)
	if err != nil {
		return err
	}
	t, chains, err := e.tableOf(c, l)
	if t == nil {
		l.discard(old)
		return err
	}
	l.config, l.chains, l.refused = c, chains, err
	l.table.Store(t)
	if l != old {
		tlsConfig, terr := e.serverTLS(c)
		if terr != nil {
			l.discard(old)
			return terr
		}
		s := listener.NewSocket(listener.SocketOptions{TLS: tlsConfig, Table: l.table.Load, Guard: e.guard, Logger: e.o.Logger})
		l.drain, l.active = s.Drain, s.Active
		e.run(l, s.Serve)
	}
	e.listeners[c.GetName()] = l
	return err
}

// listeningAt is the listener of before, if it has the same port, or a new one.
func (e *Engine) listeningAt(c *listenerv3.Listener, old *listening) (*listening, error) {
	a := c.GetAddress().GetSocketAddress()
	address := net.JoinHostPort(a.GetAddress(), strconv.Itoa(int(a.GetPortValue())))
	if old != nil && old.address == address {
		return old, nil
	}
	if old != nil {
		return nil, fmt.Errorf("address: it was %s: remove the listener first", old.address)
	}
	socket, err := e.o.Listen(address)
	if err != nil {
		return nil, fmt.Errorf("address: %w", err)
	}
	return &listening{name: c.GetName(), address: address, socket: &counting{Listener: socket}}, nil
}

// discard closes what was opened for a listener that was not taken after all.
func (l *listening) discard(old *listening) {
	if l != old {
		l.stop()
	}
}

func (e *Engine) run(l *listening, serve func(net.Listener) error) {
	e.work.Go(func() {
		if err := serve(l.socket); err != nil {
			e.o.Logger.Error("listener ended", "listener", l.name, "err", err)
		}
	})
	e.o.Logger.Info("listening", "listener", l.name, "address", l.socket.Addr().String())
}

// Address is where a listener is bound, or nil.
func (e *Engine) Address(name string) net.Addr {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.listeners[name]; l != nil && l.socket != nil {
		return l.socket.Addr()
	}
	return nil
}

// setTunnel takes a listener for tunnels: what comes out of them goes to an internal
// listener.
func (e *Engine) setTunnel(c *listenerv3.Listener, old *listening, m *hcmv3.HttpConnectionManager, cluster string) error {
	if e.o.TunnelTLS == nil {
		return errors.New("tunnels cannot be taken here: there is no identity")
	}
	tlsConfig, err := e.tunnelTLS(c)
	if err != nil {
		return err
	}
	filters, refused := tunnelFilters(m)
	if refused != nil {
		refused = fmt.Errorf("filter chain %s: %w", chainName(c.GetFilterChains()[0], 0), refused)
		filters = []filter.Filter{refusing{refused}}
	}
	l, err := e.listeningAt(c, old)
	if err != nil {
		return err
	}
	l.config, l.refused = c, refused
	l.filters.Store(&filters)
	if l != old {
		t, err := listener.NewTerminate(listener.TerminateOptions{
			TLS: tlsConfig, Self: e.o.Self, Source: e.o.Source, Guard: e.guard, Logger: e.o.Logger,
			Filters: func() []filter.Filter { return *l.filters.Load() },
			Target:  func() *listener.Table { return e.internal(cluster) },
			HTTP2:   h2.Config{MaxStreams: m.GetHttp2ProtocolOptions().GetMaxConcurrentStreams().GetValue()},
		})
		if err != nil {
			l.discard(old)
			return err
		}
		l.drain, l.active = t.Drain, t.Active
		e.run(l, t.Serve)
	}
	e.listeners[c.GetName()] = l
	return refused
}

// refusing answers every CONNECT with 503: what its listener says cannot be enforced.
type refusing struct{ reason error }

// Request implements [filter.Filter].
func (r refusing) Request(*filter.Context) *filter.Reply {
	return &filter.Reply{Status: 503, Body: r.reason.Error(), Details: "configuration_refused"}
}

// internal is the table of the internal listener that a cluster leads to. By custom
// both have one name; where a cluster says otherwise, that counts.
func (e *Engine) internal(cluster string) *listener.Table {
	e.mu.Lock()
	name := cluster
	if to := e.internals[cluster]; to != "" {
		name = to
	}
	l := e.listeners[name]
	e.mu.Unlock()
	if l == nil {
		return nil
	}
	return l.table.Load()
}

// tunnelOf is the connection manager of a listener that takes CONNECT and hands its
// payload to a cluster, or nil.
func tunnelOf(c *listenerv3.Listener) (m *hcmv3.HttpConnectionManager, cluster string) {
	if len(c.GetFilterChains()) != 1 {
		return nil, ""
	}
	if m = connectionManager(c.GetFilterChains()[0]); m == nil {
		return nil, ""
	}
	for _, vh := range m.GetRouteConfig().GetVirtualHosts() {
		for _, r := range vh.GetRoutes() {
			if r.GetMatch().GetConnectMatcher() != nil && terminates(r.GetRoute()) {
				return m, r.GetRoute().GetCluster()
			}
		}
	}
	return nil, ""
}

func terminates(a *routev3.RouteAction) bool {
	for _, u := range a.GetUpgradeConfigs() {
		if u.GetConnectConfig() != nil {
			return true
		}
	}
	return false
}

// tunnelFilters are those that look at each CONNECT; the router is what this package
// does.
func tunnelFilters(m *hcmv3.HttpConnectionManager) ([]filter.Filter, error) {
	var out []filter.Filter
	for i, f := range m.GetHttpFilters() {
		if chain.TypeName(f.GetTypedConfig()) == "envoy.extensions.filters.http.router.v3.Router" || f.GetDisabled() {
			continue
		}
		made, err := filter.Compile(f, chain.TypeName)
		if err != nil {
			return nil, fmt.Errorf("http_filters[%d] %s: %w", i, f.GetName(), err)
		}
		if made != nil {
			out = append(out, made)
		}
	}
	return out, nil
}

// tunnels tells a TCP proxy that asks for a tunnel.
func tunnels(f *listenerv3.Filter) bool {
	m := &tcpv3.TcpProxy{}
	return f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil && m.GetTunnelingConfig() != nil
}
