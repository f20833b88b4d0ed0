package cluster

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"github.com/cespare/xxhash/v2"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// A hash lands on the host that Envoy takes: recorded from an Envoy.
func TestHashedChoicesAreEnvoys(t *testing.T) {
	text, err := os.ReadFile("testdata/hashed.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Tables []struct {
			Cluster json.RawMessage
			Chosen  string
		}
	}
	if err := json.Unmarshal(text, &golden); err != nil || len(golden.Tables) == 0 {
		t.Fatal(err)
	}
	m := newManager(t, Options{})
	for _, table := range golden.Tables {
		c := m.set(t, string(table.Cluster))
		index := map[*Host]byte{}
		for i, h := range c.Hosts() {
			index[h] = byte('0' + i)
		}
		for k := range table.Chosen {
			key := fmt.Sprintf("user-%d", k)
			h, err := c.Choose(Choice{Hash: xxhash.Sum64String(key), Hashed: true})
			if err != nil {
				t.Fatal(err)
			}
			if index[h] != table.Chosen[k] {
				t.Errorf("%s: %s goes to host %c, with Envoy to %c", c.Name(), key, index[h], table.Chosen[k])
				break
			}
		}
	}
}

// Tries after the first go elsewhere.
func TestHashedChoiceAvoidsWhatWasTried(t *testing.T) {
	for _, policy := range []string{"RING_HASH", "MAGLEV"} {
		m := newManager(t, Options{})
		c := m.eds(t, `"lb_policy":"`+policy+`"`, port(1), port(2), port(3), port(4))
		same := 0
		for k := range uint64(200) {
			o := Choice{Hash: xxhash.Sum64String(fmt.Sprint(k)), Hashed: true}
			first, _ := c.Choose(o)
			o.Tried, o.Attempts, o.Attempt = []*Host{first}, 20, 1
			if second, _ := c.Choose(o); second == first {
				same++
			}
		}
		if same > 0 {
			t.Errorf("%s: %d of 200 went to the same host again", policy, same)
		}
		m.Close()
	}
}

func TestBoundedLoad(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, `"lb_policy":"RING_HASH","common_lb_config":{"consistent_hashing_lb_config":{"hash_balance_factor":150}}`, port(1), port(2), port(3))
	o := Choice{Hash: 42, Hashed: true}
	first, _ := c.Choose(o)
	first.active.Store(10)
	second, _ := c.Choose(o)
	if second == first {
		t.Error("the busy host was chosen")
	}
	if again, _ := c.Choose(o); again != second {
		t.Error("the way past a busy host changes")
	}
}

func TestHashedTablesAreChecked(t *testing.T) {
	m := newManager(t, Options{})
	for fields, want := range map[string]string{
		`"lb_policy":"MAGLEV","maglev_lb_config":{"table_size":1000}`:                                   "prime",
		`"lb_policy":"RING_HASH","ring_hash_lb_config":{"minimum_ring_size":9000000}`:                   "at most",
		`"lb_policy":"RING_HASH","ring_hash_lb_config":{"minimum_ring_size":200,"maximum_ring_size":9}`: "is over",
	} {
		err := m.SetCluster(parse(t, `{"name":"x","type":"EDS",`+fields+`}`, &clusterv3.Cluster{}))
		wantError(t, err, want)
	}
}
