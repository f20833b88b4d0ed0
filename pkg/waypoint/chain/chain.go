// Package chain is a filter chain: network filters, and at their end an HTTP
// connection manager or a TCP proxy. It is the unit of compiling and of failing: a
// chain that cannot be enforced refuses, and the others go on.
package chain

import (
	"errors"
	"fmt"
	"maps"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/tcpproxy"
)

// NetworkFilter looks at a connection before it is served.
type NetworkFilter interface {
	// Connection may add to what is known of a connection. An error refuses it.
	Connection(c *streaminfo.Connection) error
}

// Gate is a NetworkFilter that decides who may connect. It changes nothing, so that
// it can be asked again of a connection that is in use.
type Gate interface {
	NetworkFilter
	Allow(c *streaminfo.Connection) error
}

// Chain is compiled and not changed.
type Chain struct {
	Name    string
	network []NetworkFilter
	http    *hcm.Manager
	tcp     *tcpproxy.Proxy
	// refused is why the chain serves nothing, or nil.
	refused error
}

// Refused makes a chain that answers requests with 503 and resets other connections.
func Refused(name string, reason error, recorders []hcm.Recorder, o codec.Options) *Chain {
	return &Chain{Name: name, refused: reason, http: hcm.Refusing(reason.Error(), recorders, o)}
}

// HTTP tells whether the chain reads requests.
func (c *Chain) HTTP() bool { return c.http != nil }

// Manager is the chain's connection manager, or nil.
func (c *Chain) Manager() *hcm.Manager { return c.http }

// Admit has the network filters look at a connection.
func (c *Chain) Admit(info *streaminfo.Connection) error {
	for _, f := range c.network {
		if err := f.Connection(info); err != nil {
			return fmt.Errorf("filter chain %s: %w", c.Name, err)
		}
	}
	return nil
}

// Denied records a connection that Admit refused. One of requests has none to record.
func (c *Chain) Denied(info *streaminfo.Connection, err error) {
	if c.tcp == nil {
		return
	}
	why, denied := "network_filter_refused", (*DeniedError)(nil)
	if errors.As(err, &denied) {
		why = denied.details()
	}
	c.tcp.Refused(info, why)
}

// Allow asks the gates alone. What this chain's other filters add for them was not
// known when a connection began under an older chain: it is added to a copy.
func (c *Chain) Allow(info *streaminfo.Connection) error {
	own := *info
	own.FilterState = maps.Clone(info.FilterState)
	for _, f := range c.network {
		var err error
		if g, ok := f.(Gate); ok {
			err = g.Allow(&own)
		} else {
			err = f.Connection(&own)
		}
		if err != nil {
			return fmt.Errorf("filter chain %s: %w", c.Name, err)
		}
	}
	return nil
}

// Refusal is why the chain serves nothing, or nil.
func (c *Chain) Refusal() error { return c.refused }
