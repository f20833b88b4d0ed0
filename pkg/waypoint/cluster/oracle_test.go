package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3" // istiod names it
	"google.golang.org/protobuf/encoding/protojson"
)

// What a real istiod sends is taken, whole.
func TestRecordedClustersLoad(t *testing.T) {
	files, _ := filepath.Glob("../../../../shared/oracle/*/waypoint*.json")
	if len(files) == 0 {
		t.Skip("no recordings here")
	}
	read := func(file string) (out struct{ Clusters, Endpoints map[string]json.RawMessage }) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatal(file, err)
		}
		return out
	}
	base := read("../../../../shared/oracle/base/waypoint.json")
	usable := 0
	for _, file := range files {
		m := newManager(t, Options{})
		all := read(file)
		for name, text := range all.Clusters {
			if string(text) == `"=base"` {
				text = base.Clusters[name]
			}
			p := &clusterv3.Cluster{}
			if err := protojson.Unmarshal(unresolved(text), p); err != nil {
				t.Errorf("%s: %s: %v", file, name, err)
				continue
			}
			if err := m.SetCluster(p); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		for name, text := range all.Endpoints {
			if string(text) == `"=base"` {
				text = base.Endpoints[name]
			}
			if err := m.SetEndpoints(parse(t, string(text), &endpointv3.ClusterLoadAssignment{})); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		for _, name := range m.Names() {
			c := m.Get(name)
			if c == nil {
				continue
			}
			if h, err := c.Choose(Choice{Random: 7}); err == nil {
				usable++
				if tunnelled := strings.HasPrefix(h.Address, "envoy://"); tunnelled != (h.tunnel.listener != "") {
					t.Errorf("%s: %s is not behind a tunnel", name, h.Address)
				}
			}
		}
		m.Close()
	}
	if usable < 200 {
		t.Errorf("only %d clusters have a host to choose", usable)
	}
}

// unresolved drops the filters of Istio's own types, which JSON cannot hold without
// their descriptors.
func unresolved(text []byte) []byte {
	var c map[string]any
	if json.Unmarshal(text, &c) != nil {
		return text
	}
	delete(c, "filters")
	out, _ := json.Marshal(c)
	return out
}
