package waypoint

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// consumer is who resources are made for.
type consumer struct {
	gateway model.Key
	client  string
}

// maxKept bounds the consumers whose resources, and whose rules, are kept.
const maxKept = 64

// port is a port that takes requests.
type port struct {
	service *model.Service
	number  uint32
}

// made are the resources of one consumer. It is never changed.
type made struct {
	resources push.Resources
	// changed are those that are others than in what it was made of.
	changed push.Resources
	// version is the builder's of requests that the routes are of, which lead to
	// backends.
	version uint64
	// model is what the endpoints are of.
	model    *model.Model
	backends map[port][]envoy.Backend
}

// Resources makes a waypoint's resources for the client that takes them: it is a
// [push.Generate]. Where only routes of requests have changed since they were last
// made, those of the services concerned are made again, and the rest are the
// messages that they were.
func (t *Translation) Resources(w *model.Waypoint, c push.Consumer) (push.Generated, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := t.optionsLocked(w, Client{Own: c.Own, Options: envoy.Options{
		IstioExtensions: c.Istio, Locality: envoy.Locality{Region: c.Region, Zone: c.Zone, SubZone: c.SubZone}, Labels: c.Labels,
	}})
	key := consumer{w.Key, c.String()}
	if before := t.kept[key]; before != nil {
		now, err := t.againLocked(before, w, c, o)
		if err != nil {
			return push.Generated{}, err
		}
		if now != nil {
			t.kept[key] = now
			return push.Generated{All: now.resources, Before: before.resources, Changed: now.changed}, nil
		}
	}
	delete(t.kept, key)
	if len(t.kept) >= maxKept { // clients that left stay until then
		clear(t.kept)
	}
	now := &made{version: t.requests.Version(), model: t.m, backends: map[port][]envoy.Backend{}}
	routes := o.Parts.Routes
	o.Parts.Routes = func(s *model.Service, p *model.Port) (envoy.Routes, error) {
		r, err := routes(s, p)
		now.backends[port{s, p.Number}] = r.Backends
		return r, err
	}
	all, err := t.generateLocked(w, o)
	if err != nil {
		return push.Generated{}, err
	}
	now.resources = push.Resources{
		push.ClusterType: messages(all.Clusters), push.EndpointType: messages(all.Endpoints),
		push.ListenerType: messages(all.Listeners), push.RouteType: messages(all.Routes),
	}
	t.kept[key] = now
	return push.Generated{All: now.resources}, nil
}

var _ push.Generate = (*Translation)(nil).Resources

// againLocked makes the routes whose objects are others than before. It returns
// nil where routes lead elsewhere than before, so that clusters may have changed.
func (t *Translation) againLocked(before *made, w *model.Waypoint, c push.Consumer, o envoy.Options) (*made, error) {
	services, known := t.requests.Changed(before.version)
	if !known {
		return nil, nil
	}
	changed := map[string]proto.Message{} // route configurations
	for _, s := range services {
		for i := range s.Ports {
			p := &s.Ports[i]
			old, leads := before.backends[port{s, p.Number}]
			if !leads {
				continue // none of this waypoint's
			}
			r, err := o.Parts.Routes(s, p)
			if err != nil {
				return nil, err
			}
			if !slices.Equal(r.Backends, old) {
				return nil, nil
			}
			config := envoy.RouteConfiguration(w, o, s, p, r)
			changed[config.Name] = config
		}
	}
	endpoints, ok := t.endpointsLocked(before, w, c, o)
	if !ok {
		return nil, nil
	}
	now := &made{resources: maps.Clone(before.resources), changed: push.Resources{push.RouteType: changed, push.EndpointType: endpoints},
		version: t.requests.Version(), model: t.m, backends: before.backends}
	for typeURL, messages := range now.changed {
		if len(messages) > 0 {
			now.resources[typeURL] = maps.Clone(before.resources[typeURL])
			maps.Copy(now.resources[typeURL], messages)
		}
	}
	return now, nil
}

// endpointsLocked are the endpoints of services that have others than before. ok is
// false where more depends on them.
func (t *Translation) endpointsLocked(before *made, w *model.Waypoint, c push.Consumer, o envoy.Options) (changed map[string]proto.Message, ok bool) {
	old, now := before.model.Endpoints, t.m.Endpoints
	if source.Same(old, now) {
		return nil, true
	}
	if !c.Own {
		return nil, false // policies of layer 4 are placed by the endpoints
	}
	held := before.resources[push.EndpointType]
	has := func(cluster string) bool { return held[cluster] != nil }
	for i, s := range t.m.Services {
		if source.Same(old[i], now[i]) {
			continue
		}
		all, ok := envoy.Assignments(before.model, t.m, w, o, s, t.rulesLocked(w, c.Labels), has)
		if !ok {
			return nil, false
		}
		if changed == nil {
			changed = map[string]proto.Message{}
		}
		for name, assignment := range all {
			changed[name] = assignment
		}
	}
	return changed, true
}

func messages[M proto.Message](made map[string]M) map[string]proto.Message {
	out := make(map[string]proto.Message, len(made))
	for name, m := range made {
		out[name] = m
	}
	return out
}
