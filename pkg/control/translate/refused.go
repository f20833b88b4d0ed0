package translate

import (
	"fmt"
	"strings"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// refused denies what wrong security objects select: what they would have
// allowed or denied is not known, so nothing is allowed until they are mended.
func (s *policySet) refused() {
	seen := map[source.Ref]int{}
	for _, r := range s.w.Refused {
		if r.Targeted && len(r.Selector) == 0 {
			continue // package rbac denies for it at waypoints
		}
		name := "fairlead_refused_" + strings.ToLower(r.Ref.Kind) + "_" + r.Ref.Name
		if n := seen[r.Ref]; n > 0 {
			name += fmt.Sprintf("_%d", n)
		}
		seen[r.Ref]++
		s.add(&securityapi.Authorization{Name: name, Namespace: r.Ref.Namespace, Action: securityapi.Action_DENY, Groups: always()}, r.Selector)
		s.denied++
		what := "everything in namespace " + r.Ref.Namespace
		switch {
		case len(r.Selector) > 0:
			what = "what it selects"
		case r.Ref.Namespace == s.w.root():
			what = "everything in the mesh"
		}
		s.w.condition(policyObject(r.Ref.Kind, r.Ref.Namespace, r.Ref.Name), status.Condition{Type: status.ZtunnelAccepted, Status: "False", Reason: "Invalid",
			Message: r.Position.Say(fmt.Sprintf("%s; until it is mended, connections to %s are denied", r.Reason, what))})
	}
}

func policyObject(kind, namespace, name string) status.Object {
	return status.Object{APIVersion: "security.istio.io/v1", Kind: kind, Namespace: namespace, Name: name}
}

// reportProblems says on each object what its file has wrong.
func (w *world) reportProblems() {
	type found struct {
		messages []string
		failed   bool
		served   bool
	}
	all := map[status.Object]*found{}
	for _, p := range w.Problems {
		object := problemObject(p)
		f := all[object]
		if f == nil {
			f = &found{served: true}
			all[object] = f
		}
		f.failed = f.failed || p.Severity == source.Error
		f.served = f.served && (!p.NotServed || p.Field != "")
		message := p.Message
		if p.Field != "" {
			message = p.Field + ": " + message
		}
		f.messages = append(f.messages, p.Say(message))
	}
	for object, f := range all {
		c := status.Condition{Type: status.Accepted, Status: "True", Reason: "Warning", Message: strings.Join(f.messages, "; ")}
		switch {
		case !f.served:
			c.Status, c.Reason = "False", "NotServed"
		case f.failed:
			c.Status, c.Reason = "False", "Invalid"
		}
		w.condition(object, c)
	}
}

// problemObject is the object a problem is of, or else the file.
func problemObject(p source.Problem) status.Object {
	if p.Ref.Kind == "" || p.Ref.Name == "" {
		return status.Object{APIVersion: "fairlead.dev/v1", Kind: "File", Name: p.File}
	}
	version := "v1"
	if p.Ref.Group != "" {
		version = p.Ref.Group + "/v1"
	}
	return status.Object{APIVersion: version, Kind: p.Ref.Kind, Namespace: p.Ref.Namespace, Name: p.Ref.Name}
}
