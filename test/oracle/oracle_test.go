package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// shared is where the recordings lie, beside the repository.
const shared = "../../../shared"

// TestOracle compares all recorded cases. Without the recordings it is skipped;
// with them it fails if it found none to compare.
func TestOracle(t *testing.T) {
	if _, err := os.Stat(shared); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recordings beside the repository (../shared)")
	}
	entries, err := readIgnored("ignore.yaml")
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := filepath.Glob(filepath.Join(shared, "oracle", "*", "wds.json"))
	if err != nil || len(recordings) == 0 {
		t.Fatalf("%s is there, but holds no recorded case (%v)", shared, err)
	}
	cases, fields, skipped := 0, 0, 0
	for _, recording := range recordings {
		c := compareCase(t, filepath.Dir(recording))
		cases, fields = cases+1, fields+c.fields
		skipped += explained(t, entries, c.differences)
	}
	allUsed(t, "ignore.yaml", entries)
	t.Logf("oracle: %d cases, %d fields compared, %d of them differ as ignore.yaml says", cases, fields, skipped)
	if cases == 0 || fields == 0 {
		t.Fatal("nothing was compared")
	}
}

func compareCase(t *testing.T, dir string) *comparison {
	t.Helper()
	in := input(t, dir)
	out, err := translate.Translate(in, translate.Options{ClusterID: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	var recorded struct{ Addresses, Authorizations map[string]any }
	if err := json.Unmarshal(read(t, dir, "wds.json"), &recorded); err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	c := &comparison{name: filepath.Base(dir)}
	addresses := map[string]any{}
	for _, a := range out.Addresses {
		addresses[translate.AddressName(a)] = golden.Tree(t, a)
	}
	c.resources(recorded.Addresses, addresses)
	policies := map[string]any{}
	for _, p := range out.Policies {
		policies["policy "+translate.PolicyName(p)] = golden.Tree(t, p)
	}
	recordedPolicies := map[string]any{}
	for name, p := range recorded.Authorizations {
		recordedPolicies["policy "+name] = p
	}
	c.resources(recordedPolicies, policies)
	c.resources(recordedStatus(t, dir), ourStatus(t, out.Status))
	return c
}

// input is the model that all cases start from, the case's objects over it.
func input(t *testing.T, dir string) *source.Objects {
	t.Helper()
	mesh, err := json.Marshal(string(read(t, filepath.Dir(dir), "mesh.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	config := []source.File{
		{Name: "base.yaml", Data: read(t, filepath.Dir(dir), "base.yaml")},
		{Name: "apiserver.yaml", Data: read(t, "testdata", "apiserver.yaml")},
		{Name: "mesh.yaml", Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: " + string(mesh) + "\n")},
	}
	var over []source.File
	if data, err := os.ReadFile(filepath.Join(dir, "in.yaml")); err == nil {
		over = append(over, source.File{Name: "in.yaml", Data: data})
	} else if filepath.Base(dir) != "base" {
		t.Fatal(err)
	}
	in := source.Parse(config, over)
	for _, p := range in.Problems {
		if p.Severity == source.Error && !p.NotServed {
			t.Errorf("%s: %s", filepath.Base(dir), p)
		}
	}
	return in
}

// explained is how many of the differences entries cover; each of the others is an
// error.
func explained(t *testing.T, entries []*ignored, differences []difference) (n int) {
	t.Helper()
difference:
	for _, d := range differences {
		for _, e := range entries {
			if e.covers(d) {
				e.used++
				n++
				continue difference
			}
		}
		t.Error(d)
	}
	return n
}

// allUsed wants each entry of a file to have covered something.
func allUsed(t *testing.T, file string, entries []*ignored) {
	t.Helper()
	for _, e := range entries {
		if e.used == 0 {
			t.Errorf("%s: the entry for case %q, resource %q, path %q matched nothing: remove it", file, e.Case, e.Resource, e.Path)
		}
	}
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// compared are the conditions that belong to L4; of a waypoint's Gateway, all are.
var compared = map[string]bool{status.ZtunnelAccepted: true, status.WaypointBound: true}

func recordedStatus(t *testing.T, dir string) map[string]any {
	t.Helper()
	out := map[string]any{}
	for doc := range strings.SplitSeq("\n"+string(read(t, dir, "status.yaml")), "\n---\n") {
		var object struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
			Status   struct {
				Conditions []map[string]any
				Addresses  []any
				Listeners  []map[string]any
			}
		}
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatalf("%s: status.yaml: %v", dir, err)
		}
		key := strings.Join([]string{object.Kind, object.Metadata.Namespace, object.Metadata.Name}, " ")
		waypoint := object.Kind == "Gateway" && object.Status.Listeners[0]["name"] == "mesh"
		if waypoint {
			out["addresses "+key] = object.Status.Addresses
			for _, l := range object.Status.Listeners {
				for _, c := range l["conditions"].([]any) {
					delete(c.(map[string]any), "observedGeneration")
				}
				out[fmt.Sprint("listener ", key, " ", l["name"])] = l
			}
		}
		for _, c := range object.Status.Conditions {
			kind, _ := c["type"].(string)
			if !compared[kind] && !waypoint {
				continue
			}
			delete(c, "type")
			delete(c, "observedGeneration")
			out["condition "+key+" "+kind] = c
		}
	}
	return out
}

// plain is v as it is in YAML.
func plain(t *testing.T, v any) any {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := yaml.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func ourStatus(t *testing.T, all []status.Status) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, s := range all {
		key := strings.Join([]string{s.Object.Kind, s.Object.Namespace, s.Object.Name}, " ")
		gateway := s.Object == translate.GatewayObject(s.Object.Namespace, s.Object.Name)
		if gateway {
			out["addresses "+key] = plain(t, s.Addresses)
			for _, l := range s.Listeners {
				out["listener "+key+" "+l.Name] = plain(t, l)
			}
		}
		for _, c := range s.Conditions {
			if compared[c.Type] || gateway {
				out["condition "+key+" "+c.Type] =
					map[string]any{"status": c.Status, "reason": c.Reason, "message": c.Message}
			}
		}
	}
	return out
}
