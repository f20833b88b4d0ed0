// Package waypoint is the L7 engine of a waypoint: it takes Envoy's resources and
// serves by them. cmd/waypoint makes it; the packages below it are its parts.
package waypoint

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/live"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// Options of an [Engine].
type Options struct {
	Clusters *cluster.Manager // must be non-nil
	// Secrets are certificates and roots by the names that TLS contexts use.
	Secrets cluster.Secrets
	// TunnelTLS is what tunnels that end here are taken with; nil: none end here.
	TunnelTLS *tls.Config
	// Self is the SPIFFE id that tunnels are taken with, or "".
	Self string
	// Source is the workload at an address, as far as it is known; or nil.
	Source func(netip.Addr) *streaminfo.Workload
	// Authorize decides at each endpoint by L4 policy; or nil.
	Authorize router.Authorizer
	// Recorders compiles access loggers and adds what counts. It must be non-nil.
	Recorders Recorders
	// Want is told which endpoints and routes the configuration names; or nil.
	Want func(typeURL string, names []string)
	// Linger is how long what was removed is still there: who sends traffic here may not
	// have heard of it yet. Zero: not at all.
	Linger time.Duration
	// Listen opens a socket; nil is net.Listen on TCP.
	Listen func(address string) (net.Listener, error)
	Logger *slog.Logger // must be non-nil
}

// Recorders makes what is told of exchanges and connections when they are over.
type Recorders interface {
	HTTP(c HTTPLoggers) ([]hcm.Recorder, error)
	TCP(c TCPLoggers) ([]hcm.Recorder, error)
}

// Engine serves by the resources it was given.
type Engine struct {
	o     Options
	drain codec.Drain
	guard *guard.Guard
	keep  *router.Keep
	live  live.Set

	// mu guards below; ApplyEnvoy holds it.
	mu        sync.Mutex
	routes    map[string]*routes
	listeners map[string]*listening
	// internals are the internal listeners that clusters lead to, by cluster.
	internals map[string]string
	held      map[string]map[string]held // by type, then by name
	leaving   map[resource]*time.Timer
	unknown   uint64 // messages with fields that this build does not know
	refusals  uint64 // updates that were refused, or in part
	work      sync.WaitGroup
	closed    bool
}

var _ xds.EnvoyApplier = (*Engine)(nil)

// New returns an engine without resources.
func New(o Options) (*Engine, error) {
	if o.Clusters == nil || o.Recorders == nil || o.Logger == nil {
		return nil, errors.New("waypoint: Clusters, Recorders and Logger must be set")
	}
	if o.Listen == nil {
		o.Listen = func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	}
	return &Engine{o: o, guard: guard.New(o.Logger), keep: router.NewKeep(), routes: map[string]*routes{}, listeners: map[string]*listening{}, internals: map[string]string{}, held: map[string]map[string]held{}, leaving: map[resource]*time.Timer{}}, nil
}

// ApplyEnvoy implements [xds.EnvoyApplier].
func (e *Engine) ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error {
	e.mu.Lock()
	defer e.mu.Unlock()
	refused := map[string]error{}
	for _, r := range updated {
		e.stays(typeURL, r.GetName())
		inPart := false
		err := e.guarded(func() error {
			if r.GetResource().GetTypeUrl() == xds.RouteType {
				return e.setRoutes(r.GetResource().GetValue()) // only what has changed is decoded
			}
			m, err := r.GetResource().UnmarshalNew()
			if err != nil {
				return err
			}
			err = e.apply(m)
			// Of a listener the chains that cannot be enforced refuse, and the others serve.
			l := e.listeners[r.GetName()]
			inPart = typeURL == xds.ListenerType && l != nil && proto.Message(l.config) == m
			return err
		})
		if err != nil {
			refused[r.GetName()] = err
		}
		e.hold(typeURL, r.GetName(), r.GetVersion(), r.GetResource(), err, err == nil || inPart)
	}
	for _, name := range removed {
		delete(e.held[typeURL], name)
		e.removeLater(typeURL, name)
	}
	e.want(typeURL)
	return refused
}

// guarded takes a resource; a fault of ours is an error of that resource.
func (e *Engine) guarded(take func() error) error {
	err := errFault
	func() {
		defer e.guard.Recover("the update of a resource")
		err = take()
	}()
	return err
}

var errFault = errors.New("a fault of this program: see its log")

// Review asks Authorize again for the connections that go on, and ends those that it
// refuses: it is to be called when a policy has changed.
func (e *Engine) Review() {
	if ended := e.live.Review(); ended > 0 {
		e.o.Logger.Info("connections ended, as policies no longer allow them", "connections", ended)
	}
}

// Apply takes one static resource, a cluster or listener of the bootstrap file.
func (e *Engine) Apply(m proto.Message) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.apply(m); err != nil {
		return err
	}
	a, err := anypb.New(m)
	if err != nil {
		return err
	}
	name := ""
	if n, ok := m.(interface{ GetName() string }); ok {
		name = n.GetName()
	}
	e.hold(a.GetTypeUrl(), name, "", a, nil, true)
	h := e.held[a.GetTypeUrl()][name]
	h.static = true
	e.held[a.GetTypeUrl()][name] = h
	return nil
}

// BeginDrain takes no new connections, and has those there are end with the exchanges
// that they carry.
func (e *Engine) BeginDrain() {
	e.drain.Begin()
	for _, l := range e.stopListening() {
		l.stop()
	}
	e.drain.CloseIdle()
}

// Draining tells whether the end has begun.
func (e *Engine) Draining() bool { return e.drain.Begun() }

func (e *Engine) stopListening() (open []*listening) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, l := range e.listeners {
		open = append(open, l)
	}
	return open
}

// Drain ends connections with their next exchange and, for as long as lame, still takes
// new ones: who sends them may not have heard yet that this waypoint ends. Then it takes
// none any more, and aborts what is left when ctx ends.
func (e *Engine) Drain(ctx context.Context, lame time.Duration) {
	e.drain.Begin()
	wait := time.NewTimer(lame)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	e.BeginDrain()
	open := e.stopListening()
	var drained sync.WaitGroup
	for _, l := range open {
		if l.drain != nil {
			drained.Go(func() { l.drain(ctx) })
		}
	}
	drained.Wait()
	e.work.Wait()
}
