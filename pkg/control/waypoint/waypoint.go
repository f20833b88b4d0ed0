// Package waypoint joins the translations that make up a waypoint's
// configuration: routes of requests and of connections, authorization, access
// logs, and the Envoy resources around them. It is pure.
//
// For cmd/control-plane and tests.
package waypoint

import (
	"fmt"
	"maps"
	"sync"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/destination"
	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/l4route"
	"github.com/fairlead-mesh/fairlead/pkg/control/logging"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/rbac"
	"github.com/fairlead-mesh/fairlead/pkg/control/routing"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// Translation is one state of the mesh, translated for its waypoints.
type Translation struct {
	m   *model.Model
	out translate.Output

	// mu guards below: the builders take notes while they translate. It is that of all
	// states, as the builders are.
	mu       *sync.Mutex
	requests *routing.Builder
	streams  *l4route.Builder
	// targeted are the policies with targetRefs; all those of layer 4 as well, or
	// nil: nobody has asked for them yet.
	targeted, all *rbac.Policies
	logs          *logging.Logs
	// visited are the waypoints whose ports of connections were all translated.
	visited map[*model.Waypoint]bool
	// rules are the DestinationRules as clients see them.
	rules map[consumer]*destination.Rules
	// kept are the resources that were made, in this state or in one that differs
	// from it in routes alone.
	kept map[consumer]*made
}

// Client is who asks for a waypoint's configuration.
type Client struct {
	envoy.Options // without Parts
	// Own: it is our waypoint, which is sent the policies of layer 4 as nodes are.
	// Any other gets them as filters.
	Own bool
}

// New reads a state. What previous, which may be nil, has translated of objects
// that are still the same is used again. Previous then answers for the new state.
func New(out translate.Output, previous *Translation) *Translation {
	t := &Translation{m: out.Model, out: out, mu: &sync.Mutex{}, visited: map[*model.Waypoint]bool{}, rules: map[consumer]*destination.Rules{}, kept: map[consumer]*made{}}
	var requests *routing.Builder
	if previous != nil {
		t.mu = previous.mu
		t.mu.Lock()
		defer t.mu.Unlock()
		requests = previous.requests
	}
	t.requests = routing.New(out.Model, requests)
	if previous != nil && sameButRequests(previous.m, out.Model, previous.streams.DependsOnPods()) {
		t.streams, t.targeted, t.all, t.logs, t.kept = previous.streams, previous.targeted, previous.all, previous.logs, maps.Clone(previous.kept)
		t.visited, t.rules = previous.visited, previous.rules
		if !source.Same(previous.m.Endpoints, out.Model.Endpoints) {
			t.all = nil
		}
		return t
	}
	t.streams, t.targeted, t.logs = l4route.New(out.Model), rbac.New(out.Model, nil), logging.New(out.Model)
	return t
}

// Generate makes a waypoint's resources.
func (t *Translation) Generate(w *model.Waypoint, c Client) (envoy.Resources, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.generateLocked(w, t.optionsLocked(w, c))
}

func (t *Translation) generateLocked(w *model.Waypoint, o envoy.Options) (envoy.Resources, error) {
	out, err := envoy.Generate(t.m, w, o)
	t.visited[w] = t.visited[w] || err == nil
	return out, err
}

// optionsLocked are a client's with the parts that are translated here.
func (t *Translation) optionsLocked(w *model.Waypoint, c Client) envoy.Options {
	rules := t.rulesLocked(w, c.Labels)
	policies := t.targeted
	if !c.Own {
		if t.all == nil {
			t.all = rbac.New(t.m, rbac.NewLayer4(t.out.Policies, t.out.Addresses))
		}
		policies = t.all
	}
	o := c.Options
	o.Parts = envoy.Parts{
		Routes: func(s *model.Service, p *model.Port) (envoy.Routes, error) {
			config, backends := t.requests.HTTP(rules, s, p, c.IstioExtensions)
			out := envoy.Routes{Config: config}
			for _, b := range backends {
				out.Backends = append(out.Backends, envoy.Backend{Service: b.Service, Port: b.Port, Kind: envoy.HTTP, Subset: b.Subset, Hashed: b.Hashed})
			}
			return out, nil
		},
		Streams: func(s *model.Service, p *model.Port) (envoy.Streams, error) {
			return t.streams.Streams(rules, s, p), nil
		},
		HTTPFilters: func(s *model.Service, p *model.Port) ([]*hcmv3.HttpFilter, error) {
			var leads []rbac.Lead
			if !c.Own && s != nil && p != nil { // our own decides by the endpoint that it chose
				_, backends := t.requests.HTTP(rules, s, p, c.IstioExtensions)
				for _, b := range backends {
					leads = append(leads, rbac.Lead{Service: b.Service, Port: b.Port})
				}
			}
			return policies.HTTPFilters(w, s, p, leads...)
		},
		NetworkFilters: func(s *model.Service, p *model.Port) ([]*listenerv3.Filter, error) {
			var leads []rbac.Lead
			if !c.Own && s != nil && p != nil {
				for _, b := range t.streams.Streams(rules, s, p).Backends {
					leads = append(leads, rbac.Lead{Service: b.Service, Port: b.Port})
				}
			}
			return policies.NetworkFilters(w, s, p, leads...)
		},
		AccessLogs: func(s *model.Service, _ *model.Port) ([]*accesslogv3.AccessLog, error) {
			return t.logs.AccessLogs(w, s, c.IstioExtensions)
		},
	}
	return o
}

// Status is what is to be said of all objects, sorted: what was said before of
// those that routes and policies come from is in it. The ports of waypoints that
// nobody has asked for are translated for it.
func (t *Translation) Status() []status.Status { return status.Join(t.statuses()...) }

// statuses is Status as it is gathered. Putting thousands together takes longer, and
// routes that change meanwhile do not wait for that.
func (t *Translation) statuses() [][]status.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, w := range t.m.Waypoints {
		for _, s := range w.Services {
			t.visitLocked(w, s)
		}
		t.visited[w] = true
	}
	return [][]status.Status{t.out.Status, t.requests.Statuses(), t.streams.Statuses(), t.targeted.Status(), t.logs.Status(), destination.Statuses(t.m)}
}

// visitLocked translates the ports of a service that were not since they changed.
func (t *Translation) visitLocked(w *model.Waypoint, s *model.Service) {
	for i := range s.Ports {
		p := &s.Ports[i]
		for _, kind := range envoy.Kinds(p.Protocol) {
			switch {
			case kind == envoy.HTTP && !t.requests.Visited(s, p.Number):
				t.requests.HTTP(t.rulesLocked(w, nil), s, p, false)
			case kind == envoy.TCP && !t.visited[w]:
				t.streams.Streams(t.rulesLocked(w, nil), s, p)
			}
		}
	}
}

// rulesLocked are the DestinationRules for a waypoint's pods with labels.
func (t *Translation) rulesLocked(w *model.Waypoint, labels map[string]string) *destination.Rules {
	key := consumer{w.Key, fmt.Sprint(labels)}
	if t.rules[key] == nil {
		if len(t.rules) >= maxKept {
			clear(t.rules)
		}
		t.rules[key] = destination.NewRules(t.m, w, destination.Labels(w, labels))
	}
	return t.rules[key]
}
