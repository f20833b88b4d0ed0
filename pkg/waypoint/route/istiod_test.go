package route

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"  // in recorded routes
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3" // in recorded routes
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// recorded are all route configurations that a real istiod sent.
func recorded(t testing.TB) []*routev3.RouteConfiguration {
	t.Helper()
	files, _ := filepath.Glob("../../../../shared/oracle/*/*.json")
	if len(files) == 0 {
		t.Skip("no recordings of istiod here")
	}
	var out []*routev3.RouteConfiguration
	var collect func(v any)
	collect = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["virtualHosts"]; ok {
				js, err := json.Marshal(v)
				if err != nil {
					t.Fatal(err)
				}
				rc := new(routev3.RouteConfiguration)
				if err := protojson.Unmarshal(js, rc); err != nil {
					t.Logf("left out: %v", err)
					return
				}
				out = append(out, rc)
				return
			}
			for _, sub := range v {
				collect(sub)
			}
		case []any:
			for _, sub := range v {
				collect(sub)
			}
		}
	}
	for _, file := range files {
		b, err := os.ReadFile(file) //nolint:gosec // the test's own data
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		collect(v)
	}
	return out
}

func TestCompilesWhatIstiodSends(t *testing.T) {
	all := recorded(t)
	bad := 0
	for _, rc := range all {
		table, err := Compile(rc, Options{})
		if err != nil {
			bad++
			t.Logf("refused: %v", err)
			continue
		}
		for _, w := range table.Warnings {
			t.Errorf("%s: %s", rc.GetName(), w)
		}
	}
	if len(all) < 400 || bad > 1 {
		t.Errorf("%d of %d configurations are refused; Envoy refuses one", bad, len(all))
	}
}

// Whatever bytes are a configuration, compiling and asking does not panic, and what
// is compiled again from itself is the same.
func FuzzCompile(f *testing.F) {
	for _, text := range []string{one(`{prefix: /a}`), forwarding(`{cluster: a, hash_policy: [{cookie: {name: c, ttl: 1s}}]}`), forwarding(`{weighted_clusters: {clusters: [{name: a, weight: 1}]}}`)} {
		b, err := proto.Marshal(parse(f, text))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, "/a?b=c")
	}
	f.Fuzz(func(t *testing.T, b []byte, path string) {
		rc := new(routev3.RouteConfiguration)
		if proto.Unmarshal(b, rc) != nil {
			return
		}
		decoded, refused := Compile(rc, Options{})
		table, err := CompileFrom(nil, b, Options{})
		if (err == nil) != (refused == nil) {
			t.Fatalf("decoded at once: %v; in parts: %v", refused, err)
		}
		if err != nil {
			return
		}
		in := get("GET h/")
		in.Request.Path = path
		r := table.Find(in)
		if other := decoded.Find(in); name(other) != name(r) || table.Name != decoded.Name {
			t.Fatalf("decoded at once the route is %s, in parts %s", name(other), name(r))
		}
		if again, err := CompileFrom(table, bytes.Clone(b), Options{}); err != nil || again.Find(in) != r {
			t.Fatalf("compiled again it differs: %v", err)
		}
		if r == nil {
			return
		}
		r.Location(in)
		switch {
		case r.Forward != nil:
			c := r.Forward.Pick(in)
			r.Forward.Hash(in)
			r.RewriteRequest(in, c, true)
		case r.Direct != nil:
			r.Direct.Body(in.Info)
		}
	})
}
