package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
)

// recordedWaypoint is what a waypoint was sent.
type recordedWaypoint struct {
	Clusters, Endpoints, Listeners map[string]any
}

// TestWaypointOracle compares the waypoints' resources of all recorded cases, as
// they are made for a client with Istio's extensions. Routes by RDS stand for
// inline ones.
func TestWaypointOracle(t *testing.T) {
	if _, err := os.Stat(shared); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recordings beside the repository (../shared)")
	}
	entries, err := readIgnored("waypoint.yaml")
	if err != nil {
		t.Fatal(err)
	}
	recordings, err := filepath.Glob(filepath.Join(shared, "oracle", "*", "waypoint*.json"))
	if err != nil || len(recordings) == 0 {
		t.Fatalf("%s is there, but holds no recorded waypoint (%v)", shared, err)
	}
	var base recordedWaypoint
	if err := json.Unmarshal(read(t, shared, "oracle", "base", "waypoint.json"), &base); err != nil {
		t.Fatal(err)
	}
	fields, skipped := 0, 0
	perCase := map[string]int{}
	for _, file := range recordings {
		c := compareWaypoint(t, file, base)
		fields += c.fields
		if n := explained(t, entries, c.differences); n > 0 {
			skipped += n
			perCase[c.name] += n
		}
	}
	allUsed(t, "waypoint.yaml", entries)
	t.Logf("oracle: %d waypoints, %d fields compared, %d of them differ as waypoint.yaml says", len(recordings), fields, skipped)
	for _, name := range slices.Sorted(maps.Keys(perCase)) {
		t.Logf("  %s: %d", name, perCase[name])
	}
}

func compareWaypoint(t *testing.T, file string, base recordedWaypoint) *comparison {
	t.Helper()
	dir := filepath.Dir(file)
	key, locality := model.Key{Namespace: "default", Name: "waypoint"}, envoy.Locality{Region: "r1", Zone: "z1"}
	if name := filepath.Base(file); name != "waypoint.json" {
		parts := strings.Split(strings.TrimSuffix(name, ".json"), "-") // waypoint-<namespace>-<gateway>-<hash>-<pod>
		key, locality = model.Key{Namespace: parts[1], Name: parts[2]}, envoy.Locality{Region: "r1", Zone: "z2"}
	}
	c := &comparison{name: filepath.Base(dir)}
	if key.Name != "waypoint" {
		c.name += "/" + key.Name
	}
	var recorded recordedWaypoint
	if err := json.Unmarshal(read(t, file), &recorded); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	for _, kind := range []struct{ own, base map[string]any }{{recorded.Clusters, base.Clusters}, {recorded.Endpoints, base.Endpoints}, {recorded.Listeners, base.Listeners}} {
		for name, v := range kind.own {
			if v == "=base" {
				kind.own[name] = clone(t, kind.base[name])
			}
		}
	}
	c.resources(flatten(t, recorded.Clusters, recorded.Endpoints, recorded.Listeners, nil), generated(t, dir, key, locality))
	return c
}

func clone(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func generated(t *testing.T, dir string, key model.Key, locality envoy.Locality) map[string]any {
	t.Helper()
	out, err := translate.Translate(input(t, dir), translate.Options{ClusterID: "Kubernetes"})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(out.Model.Waypoints, func(w *model.Waypoint) bool { return w.Key == key })
	if i < 0 {
		t.Fatalf("%s: no waypoint %v", dir, key)
	}
	r, err := waypoint.New(out, nil).Generate(out.Model.Waypoints[i], waypoint.Client{Own: true, Options: envoy.Options{IstioExtensions: true, Locality: locality}})
	if err != nil {
		t.Fatalf("%s: %v", dir, err)
	}
	return flatten(t, trees(t, r.Clusters), trees(t, r.Endpoints), trees(t, r.Listeners), trees(t, r.Routes))
}

func trees[M proto.Message](t *testing.T, in map[string]M) map[string]any {
	t.Helper()
	out := map[string]any{}
	for name, m := range in {
		out[name] = golden.Tree(t, m)
	}
	return out
}

// flatten makes one set of named resources of all: the chains of main_internal
// and the addresses of its matcher are resources of their own, for neither has an
// order. Routes are put where they are referred to.
func flatten(t *testing.T, clusters, endpoints, listeners, routes map[string]any) map[string]any {
	t.Helper()
	out := map[string]any{}
	for name, v := range clusters {
		if assignment := at(v, "loadAssignment"); assignment != nil {
			v.(map[string]any)["loadAssignment"] = byLocality(assignment)
		}
		out["cluster "+name] = v
	}
	for name, v := range endpoints {
		out["endpoints "+name] = byLocality(v)
	}
	for name, v := range listeners {
		if name == "main_internal" {
			l := v.(map[string]any)
			for _, f := range list(l, "filterChains") {
				out[fmt.Sprintf("chain %v", at(f, "name"))] = inline(f, routes)
			}
			delete(l, "filterChains")
			custom, _ := at(l, "filterChainMatcher", "matcherTree", "customMatch", "typedConfig").(map[string]any)
			for _, r := range list(custom, "rangeMatchers") {
				for _, a := range list(r, "ranges") {
					address := fmt.Sprintf("%v/%v", at(a, "addressPrefix"), at(a, "prefixLen"))
					if strings.HasPrefix(address, "2001:2:") {
						continue
					}
					if strings.HasPrefix(address, "240.240.") {
						address = "allocated for " + chainOf(at(r, "onMatch"))
					}
					out["match "+address] = at(r, "onMatch")
				}
			}
			delete(custom, "rangeMatchers")
		}
		out["listener "+name] = v
	}
	return out
}

// chainOf is the first chain that a matcher names.
func chainOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		if name, ok := at(v, "action", "name").(string); ok {
			return name
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			if name := chainOf(v[k]); name != "" {
				return name
			}
		}
	case []any:
		for _, e := range v {
			if name := chainOf(e); name != "" {
				return name
			}
		}
	}
	return ""
}

// inline puts the routes that a chain asks RDS for into it.
func inline(chain any, routes map[string]any) any {
	for _, f := range list(chain, "filters") {
		config, _ := at(f, "typedConfig").(map[string]any)
		if name, ok := at(config, "rds", "routeConfigName").(string); ok {
			delete(config, "rds")
			config["routeConfig"] = routes[name]
		}
	}
	return chain
}

// byLocality makes maps of an assignment's lists, whose order says nothing.
func byLocality(v any) any {
	groups := map[string]any{}
	for _, g := range list(v, "endpoints") {
		hosts := map[string]any{}
		for _, h := range list(g, "lbEndpoints") {
			name, _ := json.Marshal(at(h, "endpoint", "address"))
			hosts[string(name)] = h
		}
		g.(map[string]any)["lbEndpoints"] = hosts
		groups[fmt.Sprintf("%v/%v/%v", at(g, "locality", "region"), at(g, "locality", "zone"), at(g, "priority"))] = g
	}
	v.(map[string]any)["endpoints"] = groups
	return v
}

func at(v any, path ...string) any {
	for _, k := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

func list(v any, key string) []any {
	l, _ := at(v, key).([]any)
	return l
}
