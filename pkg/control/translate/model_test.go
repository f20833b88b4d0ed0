package translate

import (
	"fmt"
	"maps"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// renderModel is the model in the words of the golden outputs.
func renderModel(m *model.Model) map[string]any {
	services, waypoints := map[string]any{}, map[string]any{}
	for _, s := range m.Services {
		lines := []string{}
		for _, p := range s.Ports {
			lines = append(lines, fmt.Sprintf("port %d %s %s", p.Number, p.Name, p.Protocol))
		}
		for _, e := range m.EndpointsOf(s) {
			lines = append(lines, fmt.Sprintf("%s ports=%v", renderEndpoint(e), e.Ports))
		}
		if s.Waypoint != nil {
			lines = append(lines, "waypoint "+s.Waypoint.Key.Namespace+"/"+s.Waypoint.Key.Name)
		}
		services[s.Namespace+"/"+s.Hostname] = lines
	}
	for _, w := range m.Waypoints {
		lines := []string{"runs as " + w.ServiceAccount}
		for _, s := range w.Services {
			lines = append(lines, "service "+s.Namespace+"/"+s.Hostname)
		}
		for _, e := range w.Workloads {
			lines = append(lines, renderEndpoint(e))
		}
		waypoints[w.Key.Namespace+"/"+w.Key.Name] = lines
	}
	return map[string]any{"services": services, "waypoints": waypoints}
}

func renderEndpoint(e *model.Endpoint) string {
	where := e.Hostname
	if e.Address.IsValid() {
		where = e.Address.String()
	}
	labels := []string{}
	for _, k := range slices.Sorted(maps.Keys(e.Labels)) {
		labels = append(labels, k+"="+e.Labels[k])
	}
	return fmt.Sprintf("endpoint %s %s tunnel=%t ready=%t labels=%v as %s/%s", e.Name, where, e.Tunnel, e.Ready, labels, e.Namespace, e.ServiceAccount)
}
