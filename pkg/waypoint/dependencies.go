package waypoint

import (
	"errors"
	"fmt"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/chain"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/tcpproxy"
)

// defaultSniffTimeout is how long a client that says nothing is waited for on a port
// whose protocol is not declared: its server may be the one to speak first.
const defaultSniffTimeout = 200 * time.Millisecond

// HTTPLoggers are what a connection manager's recorders are made of.
type HTTPLoggers struct {
	StatPrefix string
	Loggers    []*accesslogv3.AccessLog
}

// TCPLoggers are a TCP proxy's.
type TCPLoggers struct {
	Loggers []*accesslogv3.AccessLog
}

// clusters waits for clusters whose endpoints have not come yet.
type clusters struct{ *cluster.Manager }

// Get implements [router.Clusters].
func (c clusters) Get(name string) *cluster.Cluster { return c.Await(name, warmTimeout) }

func (e *Engine) codecOptions() codec.Options { return codec.Options{Drain: &e.drain} }

// chainDependencies are what a chain is made of; the routes that it names are noted.
func (e *Engine) chainDependencies(c *compiled) chain.Dependencies {
	return chain.Dependencies{
		HTTP: hcm.Dependencies{
			Routes: func(m *hcmv3.HttpConnectionManager) (hcm.Routes, error) { return e.routesFor(c, m) },
			Filter: func(f *hcmv3.HttpFilter) (filter.Filter, error) {
				if m, err := f.GetTypedConfig().UnmarshalNew(); err == nil {
					e.noteUnknown(strict.Check(m))
				}
				return filter.Compile(f, chain.TypeName)
			},
			Recorders: func(m *hcmv3.HttpConnectionManager) ([]hcm.Recorder, error) {
				return e.o.Recorders.HTTP(HTTPLoggers{m.GetStatPrefix(), m.GetAccessLog()})
			},
			Router: router.Options{Clusters: clusters{e.o.Clusters}, Keep: e.keep, Authorize: e.o.Authorize, Workload: e.o.Source, Guard: e.guard, Live: &e.live, Logger: e.o.Logger},
			Codec:  e.codecOptions(),
		},
		TCP:     tcpproxy.Dependencies{Clusters: clusters{e.o.Clusters}, Authorize: e.o.Authorize, Workload: e.o.Source, Guard: e.guard, Live: &e.live},
		Unknown: e.noteUnknown,
		Loggers: func(l []*accesslogv3.AccessLog) ([]hcm.Recorder, error) {
			return e.o.Recorders.TCP(TCPLoggers{l})
		},
	}
}

// noteUnknown counts and tells of fields that are passed over; nil is none.
func (e *Engine) noteUnknown(err error) {
	if err == nil {
		return
	}
	e.unknown++
	e.o.Logger.Warn("a part of the configuration is passed over", "err", err)
}

// routesFor is the place of the routes that a connection manager names, or one of its
// own for those that it holds.
func (e *Engine) routesFor(c *compiled, m *hcmv3.HttpConnectionManager) (hcm.Routes, error) {
	if rds := m.GetRds(); rds != nil {
		r := e.routesOf(rds.GetRouteConfigName())
		r.users++
		c.routes = append(c.routes, r)
		return r, nil
	}
	if m.GetRouteConfig() == nil {
		return nil, errors.New("neither rds nor route_config is set")
	}
	r, err := fixed(m.GetRouteConfig())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.GetRouteConfig().GetName(), err)
	}
	return r, nil
}
