package routing

import (
	"fmt"
	"hash/fnv"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
)

func TestParseAffinity(t *testing.T) {
	for text, good := range map[string]bool{
		"cookie=user": true, "cookie=user;ttl=24h": true, "cookie=user; ttl=0s": true, "header=x-user": true, "identity": true,
		"": false, "cookie": false, "cookie=": false, "cookie=a b": false, "cookie=a;ttl=x": false, "cookie=a;ttl=-1s": false, "cookie=a;path=/": false,
		"header=a;ttl=1s": false, "identity=x": false, "ip": false,
	} {
		if _, err := parseAffinity(text); (err == nil) != good {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// pick is how a proxy chooses a weighted cluster by a hash.
func pick(w *routev3.WeightedCluster, hash uint64) string {
	var total, sum uint64
	for _, c := range w.Clusters {
		total += uint64(c.Weight.GetValue())
	}
	for _, c := range w.Clusters {
		if sum += uint64(c.Weight.GetValue()); hash%total < sum {
			return c.Name
		}
	}
	return ""
}

// As v2 grows, users move from v1 to v2 and never back, whatever the weights add
// up to and however the versions are listed.
func TestUsersMoveOneWay(t *testing.T) {
	destinations := func(v1, v2 uint32, swapped bool) []destination {
		a := destination{host: "reviews", port: 9080, subset: "v9", weight: v1}
		b := destination{host: "reviews", port: 9080, subset: "v10", weight: v2}
		if swapped {
			a, b = b, a
		}
		return []destination{a, b}
	}
	on := map[int]bool{}
	for step, w := range [][2]uint32{{100, 0}, {99, 1}, {9, 1}, {3, 1}, {50, 50}, {1, 2}, {10, 90}, {1, 999}, {0, 100}} {
		clusters := weighted(destinations(w[0], w[1], step%2 == 1), true)
		if !clusters.GetUseHashPolicy().GetValue() {
			t.Fatal("the hash policy is not used")
		}
		moved := 0
		for user := range 10_000 {
			h := fnv.New64a()
			fmt.Fprintf(h, "user-%d", user)
			v2 := pick(clusters, h.Sum64()) == envoy.ClusterName(envoy.HTTP, "reviews", 9080, "v10")
			if on[user] && !v2 {
				t.Fatalf("weights %v: user %d went back to v1", w, user)
			}
			if on[user] = v2; v2 {
				moved++
			}
		}
		share := float64(w[1]) / float64(w[0]+w[1])
		if got := float64(moved) / 10_000; got < share-0.03 || got > share+0.03 {
			t.Errorf("weights %v: %.3f of the users are on v2, want %.3f", w, got, share)
		}
	}
}

func TestNatural(t *testing.T) {
	for _, pair := range [][2]string{{"v1", "v2"}, {"v9", "v10"}, {"a", "b1"}, {"v2", "v2-b"}, {"v1.9", "v1.10"}} {
		if natural(pair[0], pair[1]) >= 0 || natural(pair[1], pair[0]) <= 0 || natural(pair[0], pair[0]) != 0 {
			t.Errorf("%s does not stand before %s", pair[0], pair[1])
		}
	}
}
