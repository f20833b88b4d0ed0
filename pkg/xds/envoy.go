package xds

import (
	"errors"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// Envoy's types that a waypoint subscribes to: clusters and listeners all,
// endpoints and routes by the names that it wants ([Client.Want]).
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// envoyTypes is in the order of subscription.
var envoyTypes = []string{ClusterType, EndpointType, ListenerType, RouteType}

// EnvoyApplier takes a waypoint's resources. ApplyEnvoy is called by one
// goroutine at a time.
type EnvoyApplier interface {
	// ApplyEnvoy takes a change of one type: resources that are new or changed, and
	// names that are gone. It returns, by name, why it refused any of them: a
	// sentence that says where in the resource. The others it has taken. What the
	// resources name it asks for with [Client.Want] before it returns.
	ApplyEnvoy(typeURL string, updated []*discovery.Resource, removed []string) map[string]error
}

// Want makes names the endpoints or the routes that are asked for: those of the
// clusters, or of the listeners, that the caller has now. It may be called at any
// time, also out of ApplyEnvoy. What is not wanted any more is no longer sent, and
// is forgotten.
func (c *Client) Want(typeURL string, names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sub := c.types[typeURL]
	if sub == nil || sub.names == nil {
		return // not asked for by name
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
		if !sub.names[name] {
			sub.awaited[name] = true
		}
	}
	for name := range sub.names {
		if !wanted[name] {
			delete(sub.versions, name)
			delete(sub.awaited, name)
			delete(c.state.Rejected, shown(typeURL, name))
		}
	}
	sub.names = wanted
	sub.wishes++
	select {
	case c.wanted <- struct{}{}:
	default: // it is known already
	}
}

// takeEnvoy applies a response of one of Envoy's types and completes its answer.
func (c *Client) takeEnvoy(sub *subscription, response *discovery.DeltaDiscoveryResponse, answer *discovery.DeltaDiscoveryRequest) *discovery.DeltaDiscoveryRequest {
	t := response.GetTypeUrl()
	c.ignoreUnwanted(sub, response)
	before := c.doubt(sub, response)
	rejected := map[string]error{}
	var good []*discovery.Resource
	for _, r := range response.GetResources() {
		if err := checkType(t, r); err != nil {
			rejected[r.GetName()] = err
			continue
		}
		good = append(good, r)
	}
	for name, err := range c.o.Envoy.ApplyEnvoy(t, good, response.GetRemovedResources()) {
		if err == nil {
			err = errors.New("refused without a reason")
		}
		rejected[name] = err
	}
	c.note(sub, response, Decoded{Rejected: rejected}, before)
	c.mu.Lock()
	for _, r := range response.GetResources() {
		delete(sub.awaited, r.GetName())
	}
	for _, name := range response.GetRemovedResources() {
		delete(sub.awaited, name)
	}
	c.mu.Unlock()
	c.verdict(answer, rejected)
	c.sync(t)
	return answer
}

// ignoreUnwanted takes out of a response what was sent before the server heard
// that it is not wanted any more.
func (c *Client) ignoreUnwanted(sub *subscription, response *discovery.DeltaDiscoveryResponse) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if sub.names == nil {
		return
	}
	var resources []*discovery.Resource
	for _, r := range response.GetResources() {
		if sub.names[r.GetName()] {
			resources = append(resources, r)
		}
	}
	var removed []string
	for _, name := range response.GetRemovedResources() {
		if sub.names[name] {
			removed = append(removed, name)
		}
	}
	response.Resources, response.RemovedResources = resources, removed
}

// shown is a resource in the words of [State].
func shown(typeURL, name string) string {
	switch typeURL {
	case ClusterType:
		return "cluster " + name
	case EndpointType:
		return "endpoints " + name
	case ListenerType:
		return "listener " + name
	case RouteType:
		return "route " + name
	}
	return name
}
