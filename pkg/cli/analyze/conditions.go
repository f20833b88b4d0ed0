package analyze

import (
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
)

// conditions says what the control plane would say of the objects: which rules are in
// effect nowhere, which policies cannot be enforced as they are written. It translates
// as the control plane does, so it needs none.
func (w *world) conditions() {
	if !w.Whole {
		return // most of it would be about what is not in the files
	}
	out, err := translate.Translate(w.objects, translate.Options{ClusterID: "Kubernetes"})
	if err != nil {
		w.found = append(w.found, Message{Level: Error, Code: SchemaValidationError, Text: err.Error()})
		return
	}
	for _, s := range waypoint.New(out, nil).Status() {
		group, _, _ := strings.Cut(s.Object.APIVersion, "/")
		if !strings.Contains(s.Object.APIVersion, "/") {
			group = ""
		}
		ref := source.Ref{Group: group, Kind: s.Object.Kind, Namespace: s.Object.Namespace, Name: s.Object.Name}
		all := s.Conditions
		for _, p := range s.Parents {
			all = append(all, p.Conditions...)
		}
		for _, c := range all {
			if negative(c) {
				w.report(Warning, NegativeCondition, ref, "", "A condition with a negative status is present: type=%s, reason=%s, message=%s.", c.Type, c.Reason, strings.TrimSuffix(c.Message, "."))
			}
		}
	}
}

// negative tells whether a condition says that something is not as it was asked for.
// What is wrong with an object by itself is found in its schema.
func negative(c status.Condition) bool {
	switch {
	case c.Type == status.Accepted, c.Reason == "GatewaysOnly":
		return false
	case c.Type == status.RoutePartiallyInvalid, c.Type == status.WaypointMissing:
		return c.Status == "True"
	case c.Type == status.ZtunnelAccepted && c.Reason == "UnsupportedValue":
		return true
	case c.Type == status.DestinationsResolved:
		return false // said of each destination, at its line
	}
	return c.Status == "False"
}
