package waypoint

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/chain"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/listener"
)

// listening is a listener with what was made of it.
type listening struct {
	name   string
	config *listenerv3.Listener
	// refused is what of it is not in effect, or nil.
	refused error
	chains  map[string]*compiled
	table   atomic.Pointer[listener.Table]

	// Of one with a socket.
	address string
	socket  *counting
	active  func() int64 // connections
	drain   func(context.Context)
	filters atomic.Pointer[[]filter.Filter] // of a tunnel's listener
}

// compiled is a filter chain with the bytes that it was made of.
type compiled struct {
	config *listenerv3.FilterChain
	slot   *chain.Slot
	routes []*routes // that it names
}

func (l *listening) stop() {
	if l.socket != nil {
		l.socket.Close()
	}
}

// setListener takes a listener. Chains that cannot be enforced refuse what they are
// asked for, and are named in the error; the others are in effect.
func (e *Engine) setListener(c *listenerv3.Listener) error {
	old := e.listeners[c.GetName()]
	if old != nil && proto.Equal(old.config, c) {
		old.config = c
		return old.refused
	}
	switch {
	case c.GetInternalListener() != nil && isOriginate(c):
		// Streams to endpoints are opened by the clusters themselves.
		e.listeners[c.GetName()] = &listening{name: c.GetName(), config: c}
		return nil
	case c.GetInternalListener() != nil:
		return e.setInternal(c, old)
	case c.GetAddress().GetSocketAddress() != nil:
		return e.setSocket(c, old)
	}
	return errors.New("address: neither a socket address nor an internal listener")
}

func (e *Engine) removeListener(name string) {
	l := e.listeners[name]
	if l == nil {
		return
	}
	delete(e.listeners, name)
	l.stop()
	l.table.Store(nil)
	for _, c := range l.chains {
		c.release()
	}
	if l.drain != nil {
		ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
		e.work.Go(func() {
			defer cancel()
			l.drain(ctx)
		})
	}
}

func (c *compiled) release() {
	for _, r := range c.routes {
		r.users--
	}
}

// setInternal takes a listener that tunnels and others lead to.
func (e *Engine) setInternal(c *listenerv3.Listener, old *listening) error {
	l := &listening{name: c.GetName(), config: c}
	if old != nil {
		l = old
	}
	t, chains, err := e.tableOf(c, l)
	if t == nil {
		return err
	}
	l.config, l.chains, l.refused = c, chains, err
	l.table.Store(t)
	e.listeners[c.GetName()] = l
	return err
}

// tableOf compiles a listener's chains and what finds them. A nil table is an error of
// the listener as a whole, and changes nothing.
func (e *Engine) tableOf(c *listenerv3.Listener, l *listening) (*listener.Table, map[string]*compiled, error) {
	match, err := matchOf(c)
	if err != nil {
		return nil, nil, err
	}
	old := l.chains
	t := &listener.Table{Match: match, Chains: map[string]*chain.Slot{}}
	if err := sniffOf(c, t); err != nil {
		return nil, nil, err
	}
	chains := map[string]*compiled{}
	var errs []error
	for i, fc := range withDefault(c) {
		name := chainName(fc, i)
		if chains[name] != nil {
			return nil, nil, fmt.Errorf("filter_chains[%d]: the name %q stands twice", i, name)
		}
		made, err := e.chainOf(fc, old[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("filter chain %s: %w", name, err))
		}
		chains[name] = made
		t.Chains[name] = made.slot
	}
	var gone []*compiled
	for name, c := range old {
		if chains[name] == nil {
			gone = append(gone, c)
		}
	}
	e.leave(l, t, gone)
	return t, chains, errors.Join(errs...)
}

// chainOf compiles a chain, unless its bytes are those of before.
func (e *Engine) chainOf(c *listenerv3.FilterChain, old *compiled) (*compiled, error) {
	if old != nil && proto.Equal(old.config, c) {
		if refused := old.slot.Chain().Refusal(); refused != nil {
			return old, refused
		}
		return old, nil
	}
	out := &compiled{config: c}
	made, err := chain.Compile(c, e.chainDependencies(out))
	if err != nil {
		recorders, rerr := e.o.Recorders.HTTP(HTTPLoggers{})
		if rerr != nil {
			recorders = nil
		}
		made = chain.Refused(c.GetName(), err, recorders, e.codecOptions())
	}
	if old != nil {
		old.release()
	}
	if old != nil && old.slot.Chain().HTTP() == made.HTTP() {
		out.slot = old.slot
		out.slot.Swap(made)
	} else {
		out.slot = chain.NewSlot(made, &e.drain)
		if old != nil {
			old.slot.Swap(chain.Refused(c.GetName(), errors.New("it was replaced"), nil, e.codecOptions()))
		}
	}
	return out, err
}

// isOriginate tells an internal listener that opens tunnels: its one chain asks with
// CONNECT for what it was connected to.
func isOriginate(c *listenerv3.Listener) bool {
	for _, fc := range c.GetFilterChains() {
		for _, f := range fc.GetFilters() {
			if tunnels(f) {
				return true
			}
		}
	}
	return false
}

// chainName is a chain's name, or its place where it has none.
func chainName(c *listenerv3.FilterChain, i int) string {
	if c.GetName() != "" {
		return c.GetName()
	}
	return fmt.Sprintf("filter_chains[%d]", i)
}

func withDefault(c *listenerv3.Listener) []*listenerv3.FilterChain {
	chains := c.GetFilterChains()
	if d := c.GetDefaultFilterChain(); d != nil {
		chains = append(append([]*listenerv3.FilterChain(nil), chains...), d)
	}
	return chains
}

// connectionManager is a chain's, or nil.
func connectionManager(c *listenerv3.FilterChain) *hcmv3.HttpConnectionManager {
	for _, f := range c.GetFilters() {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil {
			return m
		}
	}
	return nil
}
