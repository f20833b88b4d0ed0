package waypoint

import (
	"errors"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/strict"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// apply takes a resource, but for routes: see setRoutes.
func (e *Engine) apply(m proto.Message) error {
	e.noteUnknown(strict.Check(m))
	switch r := m.(type) {
	case *clusterv3.Cluster:
		e.noteInternal(r)
		return e.o.Clusters.SetCluster(r)
	case *endpointv3.ClusterLoadAssignment:
		return e.o.Clusters.SetEndpoints(r)
	case *listenerv3.Listener:
		if e.closed {
			return errors.New("the waypoint stops")
		}
		return e.setListener(r)
	}
	return fmt.Errorf("%s is not a type that a waypoint takes", m.ProtoReflect().Descriptor().FullName())
}

// maxWarned bounds the warnings of one update that are logged; all are counted.
const maxWarned = 10

// setRoutes takes an encoded route configuration, which must not be changed any more,
// and says what is new of what it asks for and does not get.
func (e *Engine) setRoutes(wire []byte) error {
	name, err := route.Name(wire)
	if err != nil {
		return err
	}
	r := e.routesOf(name)
	known := map[string]bool{}
	for _, w := range r.warnings() {
		known[w] = true
	}
	if err := r.set(wire); err != nil {
		return err
	}
	e.noteUnknown(r.table.Load().Unfamiliar)
	said := 0
	for _, w := range r.warnings() {
		if said == maxWarned {
			break
		}
		if !known[w] {
			e.o.Logger.Warn("a route does not get all that it asks for", "routes", name, "what", w)
			said++
		}
	}
	return nil
}

func (e *Engine) remove(typeURL, name string) {
	switch typeURL {
	case xds.ClusterType:
		e.o.Clusters.Remove(name)
	case xds.EndpointType:
		e.o.Clusters.RemoveEndpoints(name)
	case xds.RouteType:
		if r := e.routes[name]; r != nil {
			r.clear()
			e.forgetRoutes()
		}
	case xds.ListenerType:
		e.removeListener(name)
	}
}

// want tells which endpoints and routes are named.
func (e *Engine) want(typeURL string) {
	if e.o.Want == nil {
		return
	}
	switch typeURL {
	case xds.ClusterType:
		e.o.Want(xds.EndpointType, e.o.Clusters.EDSNames())
	case xds.ListenerType:
		e.forgetRoutes()
		var names []string
		for name, r := range e.routes {
			if r.users > 0 {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		e.o.Want(xds.RouteType, names)
	}
}

// routesOf is the place of a route configuration, made if it is not there.
func (e *Engine) routesOf(name string) *routes {
	r := e.routes[name]
	if r == nil {
		r = newRoutes()
		e.routes[name] = r
	}
	return r
}

// forgetRoutes drops places that nothing names and that hold nothing.
func (e *Engine) forgetRoutes() {
	for name, r := range e.routes {
		if r.users == 0 && r.table.Load() == nil {
			delete(e.routes, name)
		}
	}
}

// noteInternal keeps to which internal listener a cluster leads.
func (e *Engine) noteInternal(c *clusterv3.Cluster) {
	for _, l := range c.GetLoadAssignment().GetEndpoints() {
		for _, ep := range l.GetLbEndpoints() {
			if name := ep.GetEndpoint().GetAddress().GetEnvoyInternalAddress().GetServerListenerName(); name != "" {
				e.internals[c.GetName()] = name
			}
		}
	}
}
