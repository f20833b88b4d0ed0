package destination

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// labelGatewayName is on a waypoint's pods and names its Gateway.
const labelGatewayName = "gateway.networking.k8s.io/gateway-name"

// Labels are those of a waypoint's pods as far as they are known: given ones and
// the one that names the Gateway.
func Labels(w *model.Waypoint, given map[string]string) map[string]string {
	out := map[string]string{labelGatewayName: w.Key.Name}
	maps.Copy(out, given)
	return out
}

// found is what is known of one DestinationRule.
type found struct {
	services, bound int
	inEffect        bool
	hiddenBy        string
	notes           map[string]bool
}

// Statuses says of each DestinationRule whether it is in effect at the waypoints
// of the services that it is for, and what of it is not.
func Statuses(m *model.Model) []status.Status {
	if len(m.Objects.DestinationRules) == 0 {
		return nil
	}
	all := map[*networkingv1.DestinationRule]*found{}
	exact, wild := map[string][]*networkingv1.DestinationRule{}, []*networkingv1.DestinationRule(nil)
	for _, d := range m.Objects.DestinationRules {
		all[d] = &found{notes: map[string]bool{}}
		if host := Hostname(d.Spec.Host, d.Namespace, m.ClusterDomain); strings.HasPrefix(host, "*") {
			wild = append(wild, d)
		} else {
			exact[host] = append(exact[host], d)
		}
	}
	rules := map[*model.Waypoint]*Rules{}
	for _, w := range m.Waypoints {
		if len(w.Services) > 0 {
			rules[w] = NewRules(m, w, Labels(w, nil))
		}
	}
	for _, s := range m.Services {
		var holds *Rule
		if s.Waypoint != nil {
			holds = rules[s.Waypoint].For(s)
		}
		candidates := exact[s.Hostname]
		for _, d := range wild {
			if strings.HasSuffix(s.Hostname, d.Spec.Host[1:]) {
				candidates = append(slices.Clip(candidates), d)
			}
		}
		for _, d := range candidates {
			f := all[d]
			f.services++
			if s.Waypoint == nil {
				continue
			}
			f.bound++
			switch {
			case holds == nil:
			case slices.Contains(holds.Objects, d):
				f.inEffect = true
				holds.notes(m, d, s, f.notes)
			default:
				f.hiddenBy = holds.Objects[0].Namespace + "/" + holds.Objects[0].Name
			}
		}
	}
	var out []status.Status
	for d, f := range all {
		s := status.Status{Object: status.Object{APIVersion: "networking.istio.io/v1", Kind: "DestinationRule", Namespace: d.Namespace, Name: d.Name}}
		s.Set(f.condition(Hostname(d.Spec.Host, d.Namespace, m.ClusterDomain)))
		out = append(out, s)
	}
	status.Sort(out)
	return out
}

func (f *found) condition(host string) status.Condition {
	c := status.Condition{Type: status.InEffect, Status: "False"}
	switch {
	case f.services == 0:
		c.Reason, c.Message = "NoService", fmt.Sprintf("host %s is no service of the mesh", host)
	case f.bound == 0:
		c.Reason, c.Message = "NoWaypoint", fmt.Sprintf("no service of host %s is bound to a waypoint that is ready, and only waypoints apply DestinationRules", host)
	case !f.inEffect && f.hiddenBy != "":
		c.Reason, c.Message = "Hidden", fmt.Sprintf("DestinationRule %s goes before it for host %s", f.hiddenBy, host)
	case !f.inEffect:
		c.Reason, c.Message = "NotVisible", "the waypoint is of another namespace, which exportTo does not name, or its pods do not have the labels of workloadSelector"
	case len(f.notes) > 0:
		c.Reason, c.Message = "PartlyInEffect", strings.Join(slices.Sorted(maps.Keys(f.notes)), "; ")
	default:
		c.Status, c.Reason, c.Message = "True", "InEffect", "in effect at the waypoints of its services"
	}
	return c
}

// notes are what of a joined rule has no effect for a service.
func (r *Rule) notes(m *model.Model, d *networkingv1.DestinationRule, s *model.Service, notes map[string]bool) {
	first := r.Objects[0]
	if d.Spec.TrafficPolicy != nil && d.Spec.TrafficPolicy != r.policy {
		notes[fmt.Sprintf("spec.trafficPolicy: an older DestinationRule for the host, such as %s/%s, gives it", first.Namespace, first.Name)] = true
	}
	for i, sub := range d.Spec.Subsets {
		at := fmt.Sprintf("spec.subsets[%d]: subset %q", i, sub.Name)
		if r.Subset(sub.Name) != sub {
			notes[at+" is defined by an older DestinationRule for the host"] = true
			continue
		}
		if !slices.ContainsFunc(m.EndpointsOf(s), func(e *model.Endpoint) bool { return selected(sub.Labels, e.Labels) }) {
			notes[at+" selects no endpoint of "+s.Hostname] = true
		}
	}
}
