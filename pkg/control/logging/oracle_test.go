package logging

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

const oracle = "../../../../shared/oracle"

// TestAgainstRecordedIstiod compares the loggers of each chain of a service with
// what a real istiod made of the same objects.
func TestAgainstRecordedIstiod(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(oracle, name))
		if err != nil {
			t.Skipf("the recordings are not here: %v", err)
		}
		return string(text)
	}
	mesh := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    " +
		strings.ReplaceAll(read("mesh.yaml"), "\n", "\n    ")
	for _, name := range []string{"telemetry", "telemetry-service-and-disable"} {
		t.Run(name, func(t *testing.T) {
			m, l := world(t, mesh, read("base.yaml"), read(filepath.Join(name, "in.yaml")))
			var w *model.Waypoint
			for _, one := range m.Waypoints {
				if one.Key == (model.Key{Namespace: "default", Name: "waypoint"}) {
					w = one
				}
			}
			var recorded struct {
				Listeners map[string]struct {
					FilterChains []struct {
						Name    string `json:"name"`
						Filters []struct {
							Name        string `json:"name"`
							TypedConfig struct {
								AccessLog any `json:"accessLog"`
							} `json:"typedConfig"`
						} `json:"filters"`
					} `json:"filterChains"`
				} `json:"listeners"`
			}
			if err := json.Unmarshal([]byte(strings.ReplaceAll(read(filepath.Join(name, "waypoint.json")), `"=base"`, "{}")), &recorded); err != nil {
				t.Fatal(err)
			}
			compared := 0
			for _, c := range recorded.Listeners["main_internal"].FilterChains {
				host := c.Name[strings.LastIndexByte(c.Name, '|')+1:]
				var s *model.Service
				for _, one := range w.Services {
					if one.Hostname == host {
						s = one
					}
				}
				if s == nil && !strings.HasPrefix(c.Name, "direct-") {
					continue // the API server's own service, which base.yaml does not have
				}
				for _, f := range c.Filters {
					if f.Name != "envoy.filters.network.http_connection_manager" && f.Name != "envoy.filters.network.tcp_proxy" {
						continue
					}
					compared++
					var got any
					if logs := accessLogs(t, l, w, s, true); len(logs) > 0 {
						got = logs
					}
					if diff := cmp.Diff(f.TypedConfig.AccessLog, got); diff != "" {
						t.Errorf("%s (-istiod +ours):\n%s", c.Name, diff)
					}
				}
			}
			if compared < 10 {
				t.Errorf("only %d chains compared", compared)
			}
		})
	}
}
