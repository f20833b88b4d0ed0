package report

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// maxMessage is the most bytes that the API takes in a condition's message.
const maxMessage = 32768

// next is what must be patched of a status for it to say what is wanted, by field; nil:
// nothing. want is nil where nothing is wanted any more. Times of conditions move with
// their Status alone.
func (k *kind) next(have map[string]any, namespace string, want *status.Status, generation int64, now time.Time) map[string]any {
	if want == nil {
		want = &status.Status{}
	}
	s := stamp{k: k, generation: generation, now: now.UTC().Format(time.RFC3339)}
	patch := map[string]any{}
	for _, field := range k.fields {
		before := list(have[field])
		var after []any
		switch field {
		case fieldConditions:
			after = s.conditions(before, want.Conditions)
		case fieldAddresses:
			after = addresses(want.Addresses)
		case fieldListeners:
			after = s.listeners(before, want.Listeners)
		case fieldParents:
			after = s.parents(before, namespace, want.Parents)
		}
		if same(before, after) {
			continue
		}
		switch {
		case len(after) > 0:
			patch[field] = after
		case field == fieldParents: // they must be there
			patch[field] = []any{}
		default:
			patch[field] = nil
		}
	}
	if len(patch) == 0 {
		return nil
	}
	return patch
}

func same(a, b []any) bool {
	return len(a) == 0 && len(b) == 0 || reflect.DeepEqual(a, b)
}

// stamp is what goes into conditions beside what they say.
type stamp struct {
	k          *kind
	generation int64
	now        string
}

// conditions keeps those of others where they are, replaces ours in place and appends
// new ones.
func (s stamp) conditions(before []any, want []status.Condition) []any {
	var after []any
	placed := map[string]bool{}
	for _, one := range before {
		have := object(one)
		kind, _ := have["type"].(string)
		if !s.k.ours(kind) {
			after = append(after, one)
			continue
		}
		i := slices.IndexFunc(want, func(c status.Condition) bool { return c.Type == kind })
		if i < 0 || placed[kind] {
			continue
		}
		placed[kind] = true
		after = append(after, s.condition(have, want[i]))
	}
	for _, c := range want {
		if !placed[c.Type] && s.k.ours(c.Type) {
			after = append(after, s.condition(nil, c))
		}
	}
	return after
}

func (s stamp) condition(have map[string]any, c status.Condition) map[string]any {
	since := s.now
	if at, _ := have["lastTransitionTime"].(string); at != "" && have["status"] == c.Status {
		since = at
	}
	out := map[string]any{
		"type": c.Type, "status": c.Status, "reason": cmp.Or(c.Reason, c.Type), "message": bounded(c.Message), "lastTransitionTime": since,
	}
	if s.generation > 0 {
		out["observedGeneration"] = s.generation
	}
	return out
}

func bounded(message string) string {
	if len(message) <= maxMessage {
		return message
	}
	const more = " ..."
	end := maxMessage - len(more)
	for end > 0 && !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + more
}

func addresses(want []status.Address) (out []any) {
	for _, a := range want {
		one := map[string]any{"value": a.Value}
		if a.Type != "" {
			one["type"] = a.Type
		}
		if a.Host != "" {
			one["host"] = a.Host
		}
		out = append(out, one)
	}
	return out
}

// listeners are ours as a whole.
func (s stamp) listeners(before []any, want []status.Listener) (out []any) {
	// Conditions of a listener have types that a Gateway has not.
	all := stamp{k: &kind{group: groupGateway}, generation: s.generation, now: s.now}
	for _, l := range want {
		var conditions []any
		for _, b := range before {
			if have := object(b); have["name"] == l.Name {
				conditions = list(have[fieldConditions])
			}
		}
		one := map[string]any{"name": l.Name, "attachedRoutes": int64(l.AttachedRoutes), "supportedKinds": []any{}}
		var after []any
		for _, c := range l.Conditions {
			after = append(after, all.condition(conditionOf(conditions, c.Type), c))
		}
		one[fieldConditions] = after
		kinds := []any{}
		for _, k := range l.SupportedKinds {
			kinds = append(kinds, map[string]any{"group": k.Group, "kind": k.Kind})
		}
		one["supportedKinds"] = kinds
		out = append(out, one)
	}
	return out
}

func conditionOf(conditions []any, kind string) map[string]any {
	for _, c := range conditions {
		if have := object(c); have["type"] == kind {
			return have
		}
	}
	return nil
}

// parents keeps those of other controllers, and the order.
func (s stamp) parents(before []any, namespace string, want []status.Parent) (out []any) {
	placed := map[int]bool{}
	for _, one := range before {
		have := object(one)
		if have["controllerName"] != status.Controller {
			out = append(out, one)
			continue
		}
		ref := identify(object(have["parentRef"]), namespace)
		i := slices.IndexFunc(want, func(p status.Parent) bool { return identify(parentRef(p.Ref), namespace) == ref })
		if i < 0 || placed[i] {
			continue
		}
		placed[i] = true
		out = append(out, s.parent(have, want[i]))
	}
	for i, p := range want {
		if !placed[i] {
			out = append(out, s.parent(nil, p))
		}
	}
	return out
}

func (s stamp) parent(have map[string]any, p status.Parent) map[string]any {
	return map[string]any{
		"parentRef": parentRef(p.Ref), "controllerName": p.Controller,
		fieldConditions: s.conditions(list(have[fieldConditions]), p.Conditions),
	}
}

func parentRef(r status.ParentRef) map[string]any {
	out := map[string]any{"group": r.Group, "name": r.Name}
	for field, value := range map[string]string{"kind": r.Kind, "namespace": r.Namespace, "sectionName": r.SectionName} {
		if value != "" {
			out[field] = value
		}
	}
	if r.Port != 0 {
		out["port"] = int64(r.Port)
	}
	return out
}

// parentIdentity is a parentRef with its defaults.
type parentIdentity struct {
	group, kind, namespace, name, section string
	port                                  int64
}

func identify(ref map[string]any, namespace string) parentIdentity {
	text := func(field, otherwise string) string {
		if v, ok := ref[field].(string); ok {
			return v
		}
		return otherwise
	}
	id := parentIdentity{text("group", groupGateway), text("kind", "Gateway"), text("namespace", namespace), text("name", ""), text("sectionName", ""), 0}
	id.port, _ = ref["port"].(int64)
	return id
}

// claims tells whether a status holds something of ours.
func (k *kind) claims(have map[string]any) bool {
	for _, c := range list(have[fieldConditions]) {
		if kind, _ := object(c)["type"].(string); k.ours(kind) {
			return true
		}
	}
	return slices.ContainsFunc(list(have[fieldParents]), func(p any) bool { return object(p)["controllerName"] == status.Controller }) ||
		slices.ContainsFunc(list(have[fieldAddresses]), func(a any) bool {
			_, host := object(a)["host"]
			return host && strings.HasPrefix(k.resource, "serviceentries")
		})
}

func list(v any) []any            { l, _ := v.([]any); return l }
func object(v any) map[string]any { m, _ := v.(map[string]any); return m }
