package waypoint

import (
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
)

// Resources makes a waypoint's resources for the client that takes them: it is a
// [push.Generate].
func (t *Translation) Resources(w *model.Waypoint, c push.Consumer) (push.Resources, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	made, err := t.generateLocked(w, Client{Own: c.Own, Options: envoy.Options{
		IstioExtensions: c.Istio, Locality: envoy.Locality{Region: c.Region, Zone: c.Zone, SubZone: c.SubZone}, Labels: c.Labels,
	}})
	if err != nil {
		return nil, err
	}
	return push.Resources{
		push.ClusterType: messages(made.Clusters), push.EndpointType: messages(made.Endpoints),
		push.ListenerType: messages(made.Listeners), push.RouteType: messages(made.Routes),
	}, nil
}

var _ push.Generate = (*Translation)(nil).Resources

func messages[M proto.Message](made map[string]M) map[string]proto.Message {
	out := make(map[string]proto.Message, len(made))
	for name, m := range made {
		out[name] = m
	}
	return out
}
