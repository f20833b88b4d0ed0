package ztunnel

import (
	"context"
	"net"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Resumption is a connection of another agent's that the pod has a place for. Begin or
// Drop follows.
type Resumption struct {
	p              *Proxy
	c              Carried
	client, server *net.TCPConn
	places         chan struct{}
	// As of when it was taken; self may be nil where it is outbound.
	snapshot *store.Snapshot
	self     *mesh.Workload
}

// Resume takes a connection that another agent has carried. It does not touch it
// before Begin. An error says that the pod cannot have it, or not yet; the sockets are
// the caller's then.
func (p *Proxy) Resume(c Carried, client, server *net.TCPConn) (*Resumption, error) {
	select {
	case <-p.o.Ready:
	default:
		return nil, errNoState
	}
	r := &Resumption{p: p, c: c, client: client, server: server, places: p.outgoing, snapshot: p.o.State.Snapshot()}
	r.self = p.find(r.snapshot)
	if c.Inbound {
		r.places = p.incoming
		switch {
		case r.self == nil:
			return nil, errUnknownPod // whose policies are not known
		case !p.isOwn(c.Original.Addr()):
			return nil, errNotOurs
		}
	}
	p.joining.Lock()
	defer p.joining.Unlock()
	if p.closed {
		return nil, errStopped
	}
	select {
	case r.places <- struct{}{}:
	default:
		return nil, errTooMany
	}
	p.conns.Add(1)
	return r, nil
}

// Begin goes on with the connection, if the policies of the moment allow it: else it
// is reset.
func (r *Resumption) Begin() {
	info := telemetry.Info{Direction: r.direction(), SourceAddr: r.c.Source, DestinationAddr: r.c.Destination}
	if r.c.Inbound {
		r.p.plainInfo(&info, r.snapshot, r.self)
	} else {
		info.Source, info.Destination = r.self, r.snapshot.Workload(r.c.Workload)
		info.Service = r.snapshot.Service(mesh.ServiceKey{Namespace: r.c.Namespace, Hostname: r.c.Hostname})
	}
	record := r.p.o.Recorder.Resume(info, r.c.Opened, r.c.ToServer, r.c.ToClient)
	go func() {
		carry, err := r.admit(record)
		settle(record, carry, err, func(err error) {
			if err != nil {
				relay.Reset(r.client, r.server)
			}
			r.leave()
		})
	}()
}

// Drop forgets it: its sockets are closed here, and another agent has them still.
func (r *Resumption) Drop() {
	_ = r.client.Close()
	_ = r.server.Close()
	r.leave()
}

func (r *Resumption) leave() {
	<-r.places
	r.p.conns.Done()
}

func (r *Resumption) direction() telemetry.Direction {
	if r.c.Inbound {
		return telemetry.Inbound
	}
	return telemetry.Outbound
}

// admit decides on it as on a new one, for which nothing is to be dialled.
func (r *Resumption) admit(record *telemetry.Record) (carrier, error) {
	ctx, cancel := context.WithTimeout(r.p.ctx, connectTimeout)
	defer cancel()
	live := Live{Direction: r.direction(), Source: r.c.Source, Original: r.c.Original, Actual: r.c.Actual, Protocol: "TCP"}
	conn := authz.Conn{SourceIP: r.c.Source.Addr(), Destination: r.c.Original}
	var check func(*view) error
	if r.c.Inbound {
		check = stillAllowed(conn, record)
	}
	l, ctx := r.p.live.add(ctx, live, check)
	if r.p.ctx.Err() != nil { // what is added from here on nobody closes
		return l.until(nil, errStopped)
	}
	if r.c.Inbound {
		if err := r.p.allowed(ctx, r.self, conn, record); err != nil {
			return l.until(nil, err)
		}
	}
	return l.until(l.relay(r.client, r.server, record))
}
