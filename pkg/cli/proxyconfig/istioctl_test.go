package proxyconfig

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"

	// The types that a waypoint's resources hold.
	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	_ "github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
)

// recordedDump makes a proxy's dump, as Envoy writes it, out of the resources that a
// real control plane sent to a waypoint.
func recordedDump(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile("../../../../shared/oracle/" + name)
	if err != nil {
		t.Skip("the recorded resources are not here")
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(raw, &parts); err != nil {
		t.Fatal(err)
	}
	sent := map[string]map[string]any{}
	for of, part := range parts {
		var resources map[string]any
		if json.Unmarshal(part, &resources) == nil {
			sent[of] = resources
		}
	}
	const admin = "type.googleapis.com/envoy.admin.v3."
	wrap := func(of, kind string, entry func(any) any) (out []any) {
		for _, key := range slices.Sorted(maps.Keys(sent[of])) {
			v, ok := sent[of][key].(map[string]any)
			if !ok {
				continue // as in the base case
			}
			v["@type"] = "type.googleapis.com/" + kind
			out = append(out, entry(toSnake(v)))
		}
		return out
	}
	dump, err := json.Marshal(map[string]any{"configs": []any{
		map[string]any{"@type": admin + "ClustersConfigDump", "dynamic_active_clusters": wrap("clusters", "envoy.config.cluster.v3.Cluster", func(v any) any { return map[string]any{"cluster": v} })},
		map[string]any{"@type": admin + "ListenersConfigDump", "dynamic_listeners": wrap("listeners", "envoy.config.listener.v3.Listener", func(v any) any {
			return map[string]any{"name": document.Text(v, "name"), "active_state": map[string]any{"listener": v}}
		})},
		map[string]any{"@type": admin + "RoutesConfigDump", "dynamic_route_configs": wrap("routes", "envoy.config.route.v3.RouteConfiguration", func(v any) any { return map[string]any{"route_config": v} })},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

// none is what istioctl says, as an error, where we show an empty table.
var none = regexp.MustCompile(`no (routes|listeners|clusters) found`)

var camelled = regexp.MustCompile(`^[a-z][a-z0-9]*([A-Z][A-Za-z0-9]*)+$`)

// toSnake gives fields the names that they have in protobuf, as Envoy's pages do.
func toSnake(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = toSnake(v[i])
		}
	case map[string]any:
		out := map[string]any{}
		for k, x := range v {
			if camelled.MatchString(k) {
				var b strings.Builder
				for _, r := range k {
					if unicode.IsUpper(r) {
						b.WriteByte('_')
					}
					b.WriteRune(unicode.ToLower(r))
				}
				k = strings.Replace(b.String(), "proxy100", "proxy_100", 1)
			}
			out[k] = toSnake(x)
		}
		return out
	}
	return v
}

// lines are a table's, without the padding and sorted: istioctl leaves ties in any order.
func lines(text string) []string {
	var out []string
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	slices.Sort(out)
	return out
}

// istioctlFile is the real one, or "".
func istioctlFile() string {
	if file := os.Getenv("ISTIOCTL"); file != "" {
		return file
	}
	found, _ := filepath.Glob("../../../.cache/parts/istioctl")
	return strings.Join(found, "")
}

// TestAsIstioctl compares our tables with those of the real istioctl, of the same dumps.
func TestAsIstioctl(t *testing.T) {
	istioctl := istioctlFile()
	if istioctl == "" {
		t.Skip("istioctl is not built: ISTIOCTL=FILE, or test/kube/build.sh istio")
	}
	for _, name := range []string{"base", "vs-weights-subsets", "ingress-istio-gateway"} {
		matches, _ := filepath.Glob("../../../../shared/oracle/" + name + "/*.json")
		for _, m := range matches {
			base := filepath.Base(m)
			if base == "wds.json" {
				continue
			}
			t.Run(name+"/"+base, func(t *testing.T) {
				raw := recordedDump(t, name+"/"+base)
				file := filepath.Join(t.TempDir(), "dump.json")
				if err := os.WriteFile(file, raw, 0o600); err != nil {
					t.Fatal(err)
				}
				d, err := Read(raw)
				if err != nil {
					t.Fatal(err)
				}
				for _, c := range []struct {
					args []string
					ours func(*strings.Builder) error
				}{
					{[]string{"cluster"}, func(b *strings.Builder) error { return d.Clusters(b, ClusterFilter{}, document.Short) }},
					{[]string{"cluster", "--subset", "v1"}, func(b *strings.Builder) error { return d.Clusters(b, ClusterFilter{Subset: "v1"}, document.Short) }},
					{[]string{"listener"}, func(b *strings.Builder) error { return d.Listeners(b, ListenerFilter{Verbose: true}, document.Short) }},
					{[]string{"listener", "--verbose=false"}, func(b *strings.Builder) error { return d.Listeners(b, ListenerFilter{}, document.Short) }},
					{[]string{"cluster", "-o", document.JSON}, func(b *strings.Builder) error { return d.Clusters(b, ClusterFilter{}, document.JSON) }},
					{[]string{"listener", "-o", document.JSON}, func(b *strings.Builder) error { return d.Listeners(b, ListenerFilter{}, document.JSON) }},
					{[]string{"route", "-o", document.JSON}, func(b *strings.Builder) error { return d.Routes(b, "", true, document.JSON) }},
					{[]string{"route"}, func(b *strings.Builder) error { return d.Routes(b, "", true, document.Short) }},
					{[]string{"route", "--verbose=false"}, func(b *strings.Builder) error { return d.Routes(b, "", false, document.Short) }},
				} {
					theirs, err := exec.Command(istioctl, append([]string{"proxy-config"}, append(c.args, "--file", file)...)...).CombinedOutput()
					if err != nil {
						if none.Match(theirs) {
							continue
						}
						t.Fatalf("istioctl %v: %v\n%s", c.args, err, theirs)
					}
					var ours strings.Builder
					if err := c.ours(&ours); err != nil {
						t.Fatal(err)
					}
					if slices.Contains(c.args, document.JSON) {
						sameJSON(t, []byte(ours.String()), theirs)
						continue
					}
					if !slices.Equal(lines(ours.String()), lines(string(theirs))) {
						t.Errorf("%v\nours:\n%s\nistioctl's:\n%s", c.args, ours.String(), theirs)
					}
				}
			})
		}
	}
}

// sameJSON compares lists of resources by name.
func sameJSON(t *testing.T, ours, theirs []byte) {
	t.Helper()
	var a, b []any
	if err := json.Unmarshal(ours, &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(theirs, &b); err != nil {
		t.Fatal(err)
	}
	byName := func(all []any) map[string]any {
		out := map[string]any{}
		for _, v := range all {
			out[document.Text(v, "name")] = v
		}
		return out
	}
	if diff := cmp.Diff(byName(b), byName(a)); diff != "" {
		t.Errorf("in JSON (-istioctl +ours):\n%s", diff)
	}
}
