package report

import (
	"slices"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// refused puts what is wrong with an object of the Gateway API where that API has a place
// for it. Such an object is not translated, or an earlier form of it is: so nobody else
// says Accepted of what is written.
func (k *kind) refused(want status.Status, r *record) status.Status {
	i := slices.IndexFunc(want.Conditions, func(c status.Condition) bool { return c.Type == status.Accepted && c.Status == "False" })
	if k.group != groupGateway || i < 0 {
		return want
	}
	wrong := want.Conditions[i]
	if !k.route() {
		if !slices.ContainsFunc(want.Conditions, func(c status.Condition) bool { return c.Type == status.RouteAccepted }) {
			want.Conditions = slices.Clone(want.Conditions)
			want.Set(status.Condition{Type: status.RouteAccepted, Status: "False", Reason: string(gatewayv1.GatewayReasonInvalid), Message: wrong.Message})
		}
		return want
	}
	parents := slices.Clone(want.Parents)
	for i := range parents { // an earlier form of the route is in force
		parents[i].Conditions = slices.Clone(parents[i].Conditions)
		parents[i].Set(wrong)
	}
	if len(parents) == 0 {
		for _, ref := range r.refs {
			p := status.Parent{Ref: ref, Controller: status.Controller}
			p.Set(status.Condition{Type: status.RouteAccepted, Status: "False", Reason: string(gatewayv1.RouteReasonUnsupportedValue), Message: wrong.Message})
			parents = append(parents, p)
		}
	}
	want.Parents = parents
	return want
}

// meshParents are those of a route's parents that are ours to answer for: a Gateway has a
// controller of its own.
func meshParents(refs []any) (out []status.ParentRef) {
	for _, one := range refs {
		ref := object(one)
		text := func(field string) string { v, _ := ref[field].(string); return v }
		group, given := ref["group"].(string)
		service := given && group == "" && text("kind") == "Service"
		entry := group == groupNetworking && text("kind") == "ServiceEntry"
		if !service && !entry {
			continue
		}
		port, _ := ref["port"].(int64)
		out = append(out, status.ParentRef{
			Group: group, Kind: text("kind"), Namespace: text("namespace"), Name: text("name"), SectionName: text("sectionName"), Port: int32(port),
		})
	}
	return out
}
