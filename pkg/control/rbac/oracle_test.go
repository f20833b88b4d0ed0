package rbac

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

const oracle = "../../../../shared/oracle"

// apart are the chains where we differ from istiod, with what a user sees of it.
var apart = map[string]string{
	// istiod drops DELETE from the Gateway's DENY and so denies every connection
	// to a declared TCP port; the API denies requests, and these carry none.
	"5432|tcp|db.":          "connections to db are decided by the other policies",
	"5432|tcp|db-headless.": "connections to db-headless are open",
	"443|tcp|ext-dns.":      "as with db; a connection still needs an ALLOW rule, and none can match",
	"443|tcp|kubernetes.":   "as with db",
	// The port's protocol is not declared. istiod denies whatever is no HTTP.
	"8002|tcp|appproto.": "connections to appproto are open, if they begin with what is no request",
	"9080|http|details.": "AUDIT is refused: istiod logs",
}

// TestAgainstRecordedIstiod compares filters and statuses with what a real
// istiod made of the same objects.
func TestAgainstRecordedIstiod(t *testing.T) {
	if _, err := os.Stat(oracle); err != nil {
		t.Skipf("the recordings are not here: %v", err)
	}
	for _, name := range []string{"base", "authz-targetrefs-waypoint", "authz-targetrefs-invalid", "authz-trustdomains", "authz-l4", "peerauth-mixed"} {
		t.Run(name, func(t *testing.T) {
			m, p := world(t, false, read(t, "base.yaml"), read(t, filepath.Join(name, "in.yaml")))
			var w *model.Waypoint
			for _, one := range m.Waypoints {
				if one.Key == (model.Key{Namespace: "default", Name: "waypoint"}) {
					w = one
				}
			}
			if w == nil {
				t.Fatal("there is no waypoint default/waypoint")
			}
			chains := recordedChains(t, name)
			compared := 0
			for _, s := range w.Services {
				for i := range s.Ports {
					port := &s.Ports[i]
					for _, kind := range []string{"http", "tcp"} {
						want, ok := chains[chainName(port.Number, kind, s.Hostname)]
						if !ok || differs(name, port.Number, kind, s.Hostname) {
							continue
						}
						got := []any{}
						if kind == "http" {
							for _, f := range httpFilters(t, p, w, s, port) {
								got = append(got, golden.Tree(t, f))
							}
						} else {
							for _, f := range networkFilters(t, p, w, s, port) {
								got = append(got, golden.Tree(t, f))
							}
						}
						compared++
						if diff := cmp.Diff(want, got); diff != "" {
							t.Errorf("%s (-istiod +ours):\n%s", chainName(port.Number, kind, s.Hostname), diff)
						}
					}
				}
			}
			if compared < 10 {
				t.Errorf("only %d chains compared", compared)
			}
			statuses(t, name, p)
		})
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(oracle, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func chainName(port uint32, kind, host string) string {
	number, _ := json.Marshal(port)
	return "inbound-vip|" + string(number) + "|" + kind + "|" + host
}

func differs(dir string, port uint32, kind, host string) bool {
	if dir != "authz-targetrefs-waypoint" {
		return false
	}
	for chain := range apart {
		if strings.HasPrefix(chainName(port, kind, host), "inbound-vip|"+chain) {
			return true
		}
	}
	return false
}

// recordedChains are the RBAC filters by filter chain, without their type.
func recordedChains(t *testing.T, name string) map[string][]any {
	t.Helper()
	if name != "base" {
		var own struct {
			Listeners map[string]json.RawMessage `json:"listeners"`
		}
		if err := json.Unmarshal([]byte(read(t, filepath.Join(name, "waypoint.json"))), &own); err != nil {
			t.Fatal(err)
		}
		if string(own.Listeners["main_internal"]) == `"=base"` {
			name = "base"
		}
	}
	type config map[string]any
	var recorded struct {
		Listeners map[string]struct {
			FilterChains []struct {
				Name    string `json:"name"`
				Filters []struct {
					Name        string `json:"name"`
					TypedConfig config `json:"typedConfig"`
				} `json:"filters"`
			} `json:"filterChains"`
		} `json:"listeners"`
	}
	text := strings.ReplaceAll(read(t, filepath.Join(name, "waypoint.json")), `"=base"`, `{}`)
	if err := json.Unmarshal([]byte(text), &recorded); err != nil {
		t.Fatal(err)
	}
	out := map[string][]any{}
	for _, c := range recorded.Listeners["main_internal"].FilterChains {
		found := []any{}
		for _, f := range c.Filters {
			if f.Name == NetworkFilterName {
				delete(f.TypedConfig, "@type")
				found = append(found, map[string]any(f.TypedConfig))
			}
			inner, _ := f.TypedConfig["httpFilters"].([]any)
			for _, h := range inner {
				if filter := h.(map[string]any); filter["name"] == HTTPFilterName {
					body := filter["typedConfig"].(map[string]any)
					delete(body, "@type")
					found = append(found, body)
				}
			}
		}
		out[c.Name] = found
	}
	return out
}

func statuses(t *testing.T, name string, p *Policies) {
	t.Helper()
	type key struct{ namespace, name string }
	want := map[key]string{}
	for _, doc := range strings.Split(read(t, filepath.Join(name, "status.yaml")), "\n---\n") {
		var o struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
			Status struct {
				Conditions []struct{ Type, Status, Reason, Message string } `json:"conditions"`
			} `json:"status"`
		}
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		for _, c := range o.Status.Conditions {
			if o.Kind == "AuthorizationPolicy" && c.Type == "WaypointAccepted" {
				want[key{o.Metadata.Namespace, o.Metadata.Name}] = c.Status + " " + c.Reason + " " + c.Message
			}
		}
	}
	got := map[key]string{}
	for _, s := range p.Status() {
		c := s.Conditions[0]
		got[key{s.Object.Namespace, s.Object.Name}] = c.Status + " " + c.Reason + " " + c.Message
	}
	for _, ours := range []string{"audit", "dry-run"} { // refused here; and istiod says nothing of a dry run at a waypoint
		delete(want, key{"default", ours})
		delete(got, key{"default", ours})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("WaypointAccepted (-istiod +ours):\n%s", diff)
	}
}
