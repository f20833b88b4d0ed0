package report

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

var (
	now    = time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	before = "2025-01-01T00:00:00Z"
)

const nowText = "2026-01-02T03:04:05Z"

func kindOf(t *testing.T, group, name string) *kind {
	t.Helper()
	for _, k := range kinds {
		if k.group == group && k.name == name {
			return k
		}
	}
	t.Fatalf("no kind %s of %q", name, group)
	return nil
}

func parse(t *testing.T, text string) map[string]any {
	t.Helper()
	out := map[string]any{}
	if text == "" {
		return out
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return whole(out).(map[string]any)
}

// whole makes numbers what the API's decoder makes of them.
func whole(v any) any {
	switch v := v.(type) {
	case json.Number:
		n, _ := v.Int64()
		return n
	case map[string]any:
		for k, e := range v {
			v[k] = whole(e)
		}
	case []any:
		for i, e := range v {
			v[i] = whole(e)
		}
	}
	return v
}

func bound(state, reason string) status.Condition {
	return status.Condition{Type: status.WaypointBound, Status: state, Reason: reason, Message: "m"}
}

func TestNextOfConditions(t *testing.T) {
	const theirs = `{"type":"LoadBalancerReady","status":"True","reason":"R","message":"","lastTransitionTime":"2024-01-01T00:00:00Z","observedGeneration":9}`
	mine := func(state, reason, at string, generation string) string {
		return `{"type":"istio.io/WaypointBound","status":"` + state + `","reason":"` + reason + `","message":"m","lastTransitionTime":"` + at + `","observedGeneration":` + generation + `}`
	}
	for name, c := range map[string]struct {
		have string
		want []status.Condition
		next string // "" for nothing to be written
	}{
		"the first": {"", []status.Condition{bound("True", "A")}, `{"conditions":[` + mine("True", "A", nowText, "2") + `]}`},
		"equal":     {`{"conditions":[` + mine("True", "A", before, "2") + `]}`, []status.Condition{bound("True", "A")}, ""},
		"another reason keeps the time": {`{"conditions":[` + mine("True", "A", before, "2") + `]}`, []status.Condition{bound("True", "B")},
			`{"conditions":[` + mine("True", "B", before, "2") + `]}`},
		"another generation keeps the time": {`{"conditions":[` + mine("True", "A", before, "1") + `]}`, []status.Condition{bound("True", "A")},
			`{"conditions":[` + mine("True", "A", before, "2") + `]}`},
		"another status moves the time": {`{"conditions":[` + mine("False", "A", before, "2") + `]}`, []status.Condition{bound("True", "A")},
			`{"conditions":[` + mine("True", "A", nowText, "2") + `]}`},
		"others' stay where they are": {`{"conditions":[` + theirs + `,` + mine("False", "A", before, "2") + `]}`, []status.Condition{bound("True", "A")},
			`{"conditions":[` + theirs + `,` + mine("True", "A", nowText, "2") + `]}`},
		"others' stay when ours go": {`{"conditions":[` + mine("False", "A", before, "2") + `,` + theirs + `]}`, nil, `{"conditions":[` + theirs + `]}`},
		"ours go":                   {`{"conditions":[` + mine("False", "A", before, "2") + `]}`, nil, `{"conditions":null}`},
		"nothing of ours":           {`{"conditions":[` + theirs + `]}`, nil, ""},
		"what is not ours to say":   {"", []status.Condition{{Type: "Ready", Status: "True"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := kindOf(t, "", "Service").next(parse(t, c.have), "shop", &status.Status{Conditions: c.want}, 2, now)
			if c.next == "" {
				if got != nil {
					t.Errorf("written: %v", got)
				}
				return
			}
			if d := cmp.Diff(parse(t, c.next), got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestNextOfParents(t *testing.T) {
	const other = `{"parentRef":{"name":"gw"},"controllerName":"example.com/c","conditions":[{"type":"Accepted","status":"False"}]}`
	mine := func(at, name, namespace string) string {
		return `{"parentRef":{"group":"","kind":"Service","name":"` + name + `"` + namespace + `},"controllerName":"` + status.Controller +
			`","conditions":[{"type":"Accepted","status":"True","reason":"Accepted","message":"","lastTransitionTime":"` + at + `","observedGeneration":2}]}`
	}
	parent := func(name, namespace string) status.Parent {
		return status.Parent{Ref: status.ParentRef{Kind: "Service", Name: name, Namespace: namespace}, Controller: status.Controller,
			Conditions: []status.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted"}}}
	}
	for name, c := range map[string]struct {
		have string
		want []status.Parent
		next string
	}{
		"the first":           {"", []status.Parent{parent("a", "")}, `{"parents":[` + mine(nowText, "a", "") + `]}`},
		"equal":               {`{"parents":[` + mine(before, "a", "") + `,` + other + `]}`, []status.Parent{parent("a", "")}, ""},
		"beside another's":    {`{"parents":[` + other + `]}`, []status.Parent{parent("a", "")}, `{"parents":[` + other + `,` + mine(nowText, "a", "") + `]}`},
		"another parent":      {`{"parents":[` + mine(before, "a", "") + `,` + other + `]}`, []status.Parent{parent("b", "")}, `{"parents":[` + other + `,` + mine(nowText, "b", "") + `]}`},
		"no parent any more":  {`{"parents":[` + mine(before, "a", "") + `]}`, nil, `{"parents":[]}`},
		"spelled with a name": {`{"parents":[` + mine(before, "a", "") + `]}`, []status.Parent{parent("a", "shop")}, `{"parents":[` + mine(before, "a", `,"namespace":"shop"`) + `]}`},
	} {
		t.Run(name, func(t *testing.T) {
			// A condition of the route itself has no place in its status.
			want := &status.Status{Parents: c.want, Conditions: []status.Condition{{Type: status.Accepted, Status: "False"}}}
			got := kindOf(t, groupGateway, "HTTPRoute").next(parse(t, c.have), "shop", want, 2, now)
			if c.next == "" {
				if got != nil {
					t.Errorf("written: %v", got)
				}
				return
			}
			if d := cmp.Diff(parse(t, c.next), got); d != "" {
				t.Error(d)
			}
		})
	}
}

// What was written is equal to what is wanted: the same again writes nothing.
func TestNextSettles(t *testing.T) {
	want := &status.Status{
		Conditions: []status.Condition{{Type: status.Programmed, Status: "True", Reason: "Programmed"}},
		Addresses:  []status.Address{{Type: "IPAddress", Value: "10.0.0.1"}},
		Listeners:  []status.Listener{{Name: "mesh", Conditions: []status.Condition{{Type: "Conflicted", Status: "False", Reason: "NoConflicts"}}}},
	}
	k := kindOf(t, groupGateway, "Gateway")
	patch := k.next(map[string]any{}, "shop", want, 3, now)
	text, err := json.Marshal(patch)
	if err != nil {
		t.Fatal(err)
	}
	if again := k.next(parse(t, string(text)), "shop", want, 3, now.Add(time.Hour)); again != nil {
		t.Errorf("written again: %v", again)
	}
	want.Addresses = nil
	if next := k.next(parse(t, string(text)), "shop", want, 3, now); len(next) != 1 || next["addresses"] != nil {
		t.Errorf("next %v, want that addresses go", next)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	got := bounded(strings.Repeat("ä", maxMessage))
	if len(got) > maxMessage || !utf8.ValidString(got) || !strings.HasSuffix(got, " ...") {
		t.Errorf("%d bytes, valid %v", len(got), utf8.ValidString(got))
	}
}

// What is wrong with an object of the Gateway API is said where that API has a place.
func TestRefusedOfTheGatewayAPI(t *testing.T) {
	wrong := status.Condition{Type: status.Accepted, Status: "False", Reason: "Invalid", Message: "spec.rules[0]: no"}
	route := kindOf(t, groupGateway, "HTTPRoute")
	r := &record{refs: meshParents([]any{
		map[string]any{"name": "gateway"}, map[string]any{"group": "", "kind": "Service", "name": "web", "port": int64(80)},
		map[string]any{"group": groupNetworking, "kind": "ServiceEntry", "name": "out", "namespace": "other"}, map[string]any{"kind": "Service", "name": "of-the-gateway-api"},
	})}
	got := route.refused(status.Status{Conditions: []status.Condition{wrong}}, r)
	if len(got.Parents) != 2 || got.Parents[0].Ref != (status.ParentRef{Kind: "Service", Name: "web", Port: 80}) || got.Parents[1].Ref.Namespace != "other" {
		t.Fatalf("parents %+v", got.Parents)
	}
	if c := got.Parents[0].Conditions[0]; c.Type != "Accepted" || c.Status != "False" || c.Reason != "UnsupportedValue" || c.Message != wrong.Message {
		t.Errorf("condition %+v", c)
	}
	earlier := status.Status{Conditions: []status.Condition{wrong}, Parents: []status.Parent{{Controller: status.Controller, Conditions: []status.Condition{{Type: "Accepted", Status: "True"}}}}}
	got = route.refused(earlier, r)
	if c := got.Parents[0].Conditions; len(c) != 2 || c[1] != wrong || len(earlier.Parents[0].Conditions) != 1 {
		t.Errorf("conditions %+v; what was given %+v", c, earlier.Parents)
	}
	gateway := kindOf(t, groupGateway, "Gateway").refused(status.Status{Conditions: []status.Condition{wrong}}, &record{})
	if c := gateway.Conditions[0]; c.Type != "Accepted" || c.Reason != "Invalid" {
		t.Errorf("conditions %+v", gateway.Conditions)
	}
	service := kindOf(t, "", "Service").refused(status.Status{Conditions: []status.Condition{wrong}}, &record{})
	if len(service.Conditions) != 1 {
		t.Errorf("conditions %+v", service.Conditions)
	}
}
