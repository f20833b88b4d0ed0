package analyze

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// lastApplied is where kubectl apply keeps what it was given, with the fields that the
// API server has pruned.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// pruned finds fields that were written and are not stored, because no such field
// exists: the object does less than its author believes.
func (w *world) pruned() {
	for _, d := range w.documents {
		text := document.Text(d.value, "metadata", "annotations", lastApplied)
		if !d.stored || text == "" {
			continue
		}
		for _, p := range source.Parse([]source.File{{Name: stored, Data: []byte(text)}}, nil).Problems {
			if p.Severity != source.Error || p.NotServed || !strings.HasPrefix(p.Message, "unknown field") || present(d.value, p.Field) {
				continue
			}
			w.reportAt(Error, PrunedFields, d, "", "%s: %s (it was applied, and the API server has dropped it)", p.Field, p.Message)
		}
		w.experimental(d, text)
	}
}

// experimental finds fields of routes that only the experimental definitions of the Gateway API
// have: they are read, and where the cluster has the standard definitions they are not stored.
func (w *world) experimental(d *manifest, applied string) {
	if d.Ref.Group != gatewayGroup || d.Ref.Kind != "HTTPRoute" && d.Ref.Kind != "GRPCRoute" {
		return
	}
	var was document.Value
	if err := json.Unmarshal([]byte(applied), &was); err != nil {
		return // not what kubectl writes
	}
	for i, rule := range document.List(was, "spec", "rules") {
		for _, field := range []string{"retry", "sessionPersistence"} {
			path := fmt.Sprintf("spec.rules[%d].%s", i, field)
			if document.At(rule, field) == nil || present(d.value, path) {
				continue
			}
			w.reportAt(Error, PrunedFields, d, "", "%s: the cluster's definition of %s is of the standard channel, where this field is missing: install the Gateway API's experimental definitions (it was applied, and the API server has dropped it)", path, d.Ref.Kind)
		}
	}
}

// present tells whether a path such as "spec.rules[0].from" is in a value.
func present(v any, path string) bool {
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		switch x := v.(type) {
		case map[string]any:
			v = x[step]
		case []any:
			i := index(step)
			if i < 0 || i >= len(x) {
				return false
			}
			v = x[i]
		default:
			return false
		}
	}
	return v != nil
}

func index(text string) int {
	n := 0
	for _, r := range text {
		if r < '0' || r > '9' || n > 1<<20 {
			return -1
		}
		n = n*10 + int(r-'0')
	}
	return n
}
