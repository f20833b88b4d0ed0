package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func apply(t testing.TB, s *Store, d mesh.Delta) {
	t.Helper()
	if err := s.Apply(d); err != nil {
		t.Fatal(err)
	}
}

var echo = mesh.ServiceKey{Namespace: "default", Hostname: "echo.default.svc.cluster.local"}

func pod(uid, addr string, change ...func(*mesh.Workload)) *mesh.Workload {
	w := &mesh.Workload{
		UID: mesh.WorkloadID(uid), Name: uid, Namespace: "default", Addrs: []netip.Addr{netip.MustParseAddr(addr)},
		Healthy: true, Capacity: 1, Services: map[mesh.ServiceKey][]mesh.Port{echo: {{Service: 80, Target: 8080}}},
	}
	for _, c := range change {
		c(w)
	}
	return w
}

func service(change ...func(*mesh.Service)) *mesh.Service {
	s := &mesh.Service{
		Key: echo, Name: "echo", Ports: []mesh.Port{{Service: 80, Target: 8080}},
		VIPs: []mesh.NetworkAddr{mesh.NewNetworkAddr("", netip.MustParseAddr("10.96.0.1"))},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func at(addr string) mesh.NetworkAddr { return mesh.NewNetworkAddr("", netip.MustParseAddr(addr)) }

func TestLookups(t *testing.T) {
	s := newStore(t)
	before := s.Snapshot()
	// The endpoint may come before its service.
	apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("a", "10.0.0.1")}})
	apply(t, s, mesh.Delta{Services: []*mesh.Service{service()}})
	apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("b", "fd00::1"), pod("host", "10.0.0.9", func(w *mesh.Workload) { w.HostNetwork = true })}})
	now := s.Snapshot()

	select {
	case <-before.Changed():
	default:
		t.Error("the old snapshot does not know that it is old")
	}
	if before.WorkloadByAddr(at("10.0.0.1")) != nil || len(before.Workloads()) != 0 {
		t.Error("an old snapshot changed")
	}
	if w := now.WorkloadByAddr(at("::ffff:10.0.0.1")); w == nil || w.UID != "a" {
		t.Errorf("by mapped address: %v", w)
	}
	if now.WorkloadByAddr(mesh.NewNetworkAddr("other", netip.MustParseAddr("10.0.0.1"))) != nil {
		t.Error("found in another network")
	}
	if now.WorkloadByAddr(at("10.0.0.9")) != nil {
		t.Error("a pod on its node's network was found by address")
	}
	if svc := now.ServiceByVIP(at("10.96.0.1")); svc == nil || svc.Key != echo {
		t.Errorf("by VIP: %v", svc)
	}
	if n := len(now.Endpoints(echo)); n != 3 {
		t.Errorf("%d endpoints", n)
	}

	apply(t, s, mesh.Delta{RemovedAddresses: []string{"a", echo.String(), "never/known"}})
	now = s.Snapshot()
	if now.WorkloadByAddr(at("10.0.0.1")) != nil || now.Service(echo) != nil || now.ServiceByVIP(at("10.96.0.1")) != nil {
		t.Error("removed and still found")
	}
	if n := len(now.Endpoints(echo)); n != 2 {
		t.Errorf("%d endpoints after one was removed", n)
	}
}

// Two workloads may claim an address while one replaces the other; every node
// must choose the same, whatever the order of arrival.
func TestSharedAddress(t *testing.T) {
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		s := newStore(t)
		for _, uid := range order {
			apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod(uid, "10.0.0.1")}})
		}
		if w := s.Snapshot().WorkloadByAddr(at("10.0.0.1")); w.UID != "a" {
			t.Errorf("order %v: %s has the address", order, w.UID)
		}
		apply(t, s, mesh.Delta{RemovedAddresses: []string{"a"}})
		if w := s.Snapshot().WorkloadByAddr(at("10.0.0.1")); w == nil || w.UID != "b" {
			t.Errorf("order %v: after a is gone, %v", order, w)
		}
	}
}

func TestReplacedWorkloadLeavesNothing(t *testing.T) {
	s := newStore(t)
	apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("a", "10.0.0.1")}})
	apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("a", "10.0.0.2", func(w *mesh.Workload) { w.Services = nil })}})
	now := s.Snapshot()
	if now.WorkloadByAddr(at("10.0.0.1")) != nil || len(now.Endpoints(echo)) != 0 || len(now.Workloads()) != 1 {
		t.Error("the old address or endpoint is still there")
	}
}

func TestServiceByHostname(t *testing.T) {
	s := newStore(t)
	in := func(namespace string, change ...func(*mesh.Service)) *mesh.Service {
		svc := &mesh.Service{Key: mesh.ServiceKey{Namespace: namespace, Hostname: "api.example.com"}}
		for _, c := range change {
			c(svc)
		}
		return svc
	}
	apply(t, s, mesh.Delta{Services: []*mesh.Service{
		in("a"), in("b", func(s *mesh.Service) { s.Canonical = true }), in("c", func(s *mesh.Service) { s.Visibility = mesh.VisibleNamespace }),
	}})
	for from, want := range map[string]string{"a": "a", "c": "c", "elsewhere": "b"} {
		if got := s.Snapshot().ServiceByHostname("API.example.com", from); got == nil || got.Key.Namespace != want {
			t.Errorf("from %s: %v, want %s", from, got, want)
		}
	}
	apply(t, s, mesh.Delta{RemovedAddresses: []string{"a/api.example.com", "b/api.example.com"}})
	if got := s.Snapshot().ServiceByHostname("api.example.com", "elsewhere"); got != nil {
		t.Errorf("a service of namespace c alone was found from elsewhere")
	}
}

func TestLongestRangeWins(t *testing.T) {
	s := newStore(t)
	ranged := func(name, prefix string) *mesh.Service {
		return &mesh.Service{Key: mesh.ServiceKey{Namespace: "default", Hostname: name}, Prefixes: []mesh.NetworkPrefix{{Prefix: netip.MustParsePrefix(prefix)}}}
	}
	apply(t, s, mesh.Delta{Services: []*mesh.Service{ranged("wide", "10.0.0.0/8"), ranged("narrow", "10.1.0.0/16")}})
	for addr, want := range map[string]string{"10.1.2.3": "narrow", "10.2.2.3": "wide"} {
		if got := s.Snapshot().ServiceByVIP(at(addr)); got == nil || got.Key.Hostname != want {
			t.Errorf("%s: %v, want %s", addr, got, want)
		}
	}
	apply(t, s, mesh.Delta{RemovedAddresses: []string{"default/narrow"}})
	if got := s.Snapshot().ServiceByVIP(at("10.1.2.3")); got.Key.Hostname != "wide" {
		t.Errorf("after the narrow one is gone: %v", got.Key)
	}
}

func TestPoliciesOfAWorkload(t *testing.T) {
	s := newStore(t)
	policy := func(namespace, name string, scope mesh.PolicyScope) *mesh.Policy {
		return &mesh.Policy{Namespace: namespace, Name: name, Scope: scope}
	}
	apply(t, s, mesh.Delta{Policies: []*mesh.Policy{
		policy("root", "global", mesh.ScopeGlobal), policy("default", "ns", mesh.ScopeNamespace), policy("other", "ns", mesh.ScopeNamespace),
		policy("default", "mine", mesh.ScopeWorkload), policy("default", "not-mine", mesh.ScopeWorkload),
	}})
	w := pod("a", "10.0.0.1", func(w *mesh.Workload) { w.Policies = []string{"default/mine", "default/lost"} })
	names := func() (out []string) {
		policies, missing := s.Snapshot().Policies(w)
		for _, p := range policies {
			out = append(out, p.Key())
		}
		return append(out, missing...)
	}
	if diff := cmp.Diff([]string{"root/global", "default/ns", "default/mine", "default/lost"}, names()); diff != "" {
		t.Error(diff)
	}
	// A policy may change its scope; nothing of the old one may stay.
	apply(t, s, mesh.Delta{Policies: []*mesh.Policy{policy("root", "global", mesh.ScopeWorkload)}, RemovedPolicies: []string{"default/ns"}})
	if diff := cmp.Diff([]string{"default/mine", "default/lost"}, names()); diff != "" {
		t.Error(diff)
	}
}

func TestMissingPolicyHoldsConnectionsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		w := pod("a", "10.0.0.1", func(w *mesh.Workload) { w.Policies = []string{"default/late"} })
		start := time.Now()
		if _, _, missing := s.WaitPolicies(t.Context(), w); len(missing) != 1 || time.Since(start) != policyHold {
			t.Errorf("missing %v after %s", missing, time.Since(start))
		}
		start = time.Now()
		if s.WaitPolicies(t.Context(), w); time.Since(start) != 0 {
			t.Errorf("held again for %s", time.Since(start))
		}
		// One that arrives in time ends the wait.
		w.Policies = []string{"default/soon"}
		time.AfterFunc(policyHold/4, func() {
			_ = s.Apply(mesh.Delta{Policies: []*mesh.Policy{{Namespace: "default", Name: "soon", Scope: mesh.ScopeWorkload}}})
		})
		start = time.Now()
		_, policies, missing := s.WaitPolicies(t.Context(), w)
		if len(missing) != 0 || len(policies) != 1 || time.Since(start) != policyHold/4 {
			t.Errorf("policies %v, missing %v after %s", policies, missing, time.Since(start))
		}
		// A caller that gives up is let go.
		w.Policies = []string{"default/never"}
		ctx, cancel := context.WithTimeout(t.Context(), policyHold/10)
		defer cancel()
		start = time.Now()
		if s.WaitPolicies(ctx, w); time.Since(start) != policyHold/10 {
			t.Errorf("given up after %s", time.Since(start))
		}
	})
}

func TestEndpointChoice(t *testing.T) {
	located := func(region, zone, node, network string) func(*mesh.Workload) {
		return func(w *mesh.Workload) {
			w.Locality, w.Node, w.Network = mesh.Locality{Region: region, Zone: zone}, node, network
		}
	}
	unhealthy := func(w *mesh.Workload) { w.Healthy = false }
	client := pod("client", "10.9.9.9", located("r1", "z1", "n1", ""))
	mode := func(m mesh.BalanceMode, scopes ...mesh.Scope) func(*mesh.Service) {
		return func(s *mesh.Service) { s.Balancing.Mode, s.Balancing.Scopes = m, scopes }
	}
	spread := []*mesh.Workload{
		pod("node", "10.0.0.1", located("r1", "z1", "n1", "")), pod("zone", "10.0.0.2", located("r1", "z1", "n2", "")),
		pod("region", "10.0.0.3", located("r1", "z2", "n3", "")), pod("far", "10.0.0.4", located("r2", "z1", "n4", "")),
	}
	closest := []mesh.Scope{mesh.ScopeNetwork, mesh.ScopeRegion, mesh.ScopeZone, mesh.ScopeNode}
	for name, c := range map[string]struct {
		service   *mesh.Service
		endpoints []*mesh.Workload
		want      []string
		err       error
	}{
		"all without preference": {service(), spread, []string{"far", "node", "region", "zone"}, nil},
		"failover: the closest":  {service(mode(mesh.BalanceFailover, closest...)), spread, []string{"node"}, nil},
		"failover: one zone":     {service(mode(mesh.BalanceFailover, closest[:3]...)), spread, []string{"node", "zone"}, nil},
		"failover: what is left": {service(mode(mesh.BalanceFailover, closest...)), spread[3:], []string{"far"}, nil},
		"failover: a near one elsewhere is below a far one here": {service(mode(mesh.BalanceFailover, closest...)),
			[]*mesh.Workload{pod("elsewhere", "10.0.0.5", located("r1", "z1", "n1", "net2")), spread[3]}, []string{"far"}, nil},
		"strict: the node":           {service(mode(mesh.BalanceStrict, mesh.ScopeNode)), spread, []string{"node"}, nil},
		"strict: none on the node":   {service(mode(mesh.BalanceStrict, mesh.ScopeNode)), spread[1:], nil, ErrNoEndpoint},
		"passthrough":                {service(mode(mesh.BalancePassthrough)), spread, nil, ErrPassthrough},
		"unhealthy ones are left":    {service(), []*mesh.Workload{pod("ill", "10.0.0.1", unhealthy), spread[1]}, []string{"zone"}, nil},
		"none healthy":               {service(), []*mesh.Workload{pod("ill", "10.0.0.1", unhealthy)}, nil, ErrNoEndpoint},
		"unhealthy ones are allowed": {service(func(s *mesh.Service) { s.Balancing.AllowUnhealthy = true }), []*mesh.Workload{pod("ill", "10.0.0.1", unhealthy)}, []string{"ill"}, nil},
		"empty":                      {service(), nil, nil, ErrNoEndpoint},
		"no such port":               {service(func(s *mesh.Service) { s.Ports = nil }), spread, nil, ErrNoPort},
		"a named port that some have": {service(func(s *mesh.Service) { s.Ports[0].Target = 0 }),
			[]*mesh.Workload{spread[0], pod("nameless", "10.0.0.7", func(w *mesh.Workload) { w.Services = map[mesh.ServiceKey][]mesh.Port{echo: {}} })}, []string{"node"}, nil},
		"one family":         {service(func(s *mesh.Service) { s.IPFamilies = 1 }), []*mesh.Workload{pod("six", "fd00::1"), spread[0]}, []string{"node"}, nil},
		"of another family":  {service(), []*mesh.Workload{pod("six", "fd00::1")}, []string{"six"}, nil},
		"without an address": {service(), []*mesh.Workload{pod("lost", "10.0.0.1", func(w *mesh.Workload) { w.Addrs = nil })}, nil, ErrNoEndpoint},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			apply(t, s, mesh.Delta{Services: []*mesh.Service{c.service}, Workloads: c.endpoints})
			found := map[string]bool{}
			for range 200 {
				e, err := s.Snapshot().Endpoint(c.service, 80, client, false)
				if !errors.Is(err, c.err) {
					t.Fatalf("error %v, want %v", err, c.err)
				}
				if err == nil {
					found[e.Workload.Name] = true
					if e.Addr.Port() != 8080 {
						t.Errorf("port %d", e.Addr.Port())
					}
				}
			}
			var got []string
			for n := range found {
				got = append(got, n)
			}
			slices.Sort(got)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("chosen (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEndpointWeights(t *testing.T) {
	s := newStore(t)
	svc := service()
	weight := func(n uint32) func(*mesh.Workload) { return func(w *mesh.Workload) { w.Capacity = n } }
	apply(t, s, mesh.Delta{Services: []*mesh.Service{svc}, Workloads: []*mesh.Workload{pod("one", "10.0.0.1", weight(1)), pod("three", "10.0.0.2", weight(3))}})
	const draws = 20_000
	three := 0
	for range draws {
		if e, _ := s.Snapshot().Endpoint(svc, 80, nil, false); e.Workload.Name == "three" {
			three++
		}
	}
	if share := float64(three) / draws; share < 0.72 || share > 0.78 {
		t.Errorf("weights 1:3 gave the second %.3f of the draws", share)
	}
}

func TestStateSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s := newStore(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	versions := map[string]map[string]string{"type": {"a": "v1"}}
	go func() {
		done <- s.Keep(ctx, path, func() map[string]map[string]string { return versions }, slog.New(slog.DiscardHandler))
	}()
	state := mesh.Delta{
		Workloads: []*mesh.Workload{pod("a", "10.0.0.1"), pod("b", "fd00::1")}, Services: []*mesh.Service{service()},
		Policies: []*mesh.Policy{{Namespace: "default", Name: "p", Action: mesh.ActionDeny, Rules: []mesh.PolicyRule{{Clauses: []mesh.PolicyClause{{Matches: []mesh.PolicyMatch{{
			SourceIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, NotPrincipals: []mesh.StringMatch{{Kind: mesh.MatchPresence}},
		}}}}}}}},
	}
	apply(t, s, state)
	deadline := time.After(20 * time.Second)
	for {
		if _, err := os.Stat(path); err == nil {
			break
		}
		select {
		case <-deadline:
			t.Fatal("never written")
		case <-time.After(10 * time.Millisecond):
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	saved, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	sorted := cmpopts.SortSlices(func(a, b *mesh.Workload) bool { return a.UID < b.UID })
	address := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	prefix := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff(Saved{state, versions}, saved, sorted, address, prefix); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}

	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	for name, content := range map[string][]byte{"damaged": b, "short": b[:10], "of another version": append([]byte("another"), b...)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if saved, err := Load(path); err == nil || len(saved.State.Workloads) > 0 {
			t.Errorf("%s file: %v", name, err)
		}
	}
	if saved, err := Load(path + ".none"); err != nil || len(saved.State.Workloads) != 0 {
		t.Errorf("no file: %v", err)
	}
}

// A change that arrives while the state is read is not half in what is kept.
func TestVersionsBelongToTheState(t *testing.T) {
	s := newStore(t)
	apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("a", "10.0.0.1")}})
	reads := 0
	saved, generation, err := s.saved(func() map[string]map[string]string {
		if reads++; reads == 1 {
			apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("b", "10.0.0.2")}})
		}
		return map[string]map[string]string{"type": {"read": fmt.Sprint(reads)}}
	})
	if err != nil || generation != 2 || len(saved.State.Workloads) != 2 || saved.Versions["type"]["read"] != "2" {
		t.Errorf("generation %d, %d workloads, versions %v, %v", generation, len(saved.State.Workloads), saved.Versions, err)
	}
	_, _, err = s.saved(func() map[string]map[string]string {
		apply(t, s, mesh.Delta{Workloads: []*mesh.Workload{pod("b", "10.0.0.2")}})
		return nil
	})
	if !errors.Is(err, errBusy) {
		t.Errorf("a state that always changes: %v", err)
	}
}

// Random changes leave the same indexes as building the result at once, and no
// snapshot that was taken on the way changes afterwards.
func TestChangesLeaveWhatIsThere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	keys := []mesh.ServiceKey{{Namespace: "a", Hostname: "x"}, {Namespace: "b", Hostname: "y"}, {Namespace: "c", Hostname: "z"}}
	any := func() *mesh.Workload {
		w := pod(fmt.Sprint("w", random.IntN(30)), fmt.Sprint("10.0.0.", random.IntN(8)))
		w.Services = map[mesh.ServiceKey][]mesh.Port{}
		for _, k := range keys {
			if random.IntN(2) == 0 {
				w.Services[k] = nil
			}
		}
		return w
	}
	view := func(s *Snapshot) (out []string) {
		for _, k := range keys {
			for _, w := range s.Endpoints(k) {
				out = append(out, fmt.Sprintf("%s=%p", k, w))
			}
		}
		for i := range 8 {
			out = append(out, fmt.Sprintf("%d=%p", i, s.WorkloadByAddr(at(fmt.Sprint("10.0.0.", i)))))
		}
		return out
	}
	s := newStore(t)
	type taken struct {
		snapshot *Snapshot
		view     []string
	}
	var kept []taken
	want := map[mesh.WorkloadID]*mesh.Workload{}
	for range 300 {
		var d mesh.Delta
		for range random.IntN(12) {
			w := any()
			if _, twice := want[w.UID]; twice && random.IntN(3) == 0 {
				d.RemovedAddresses = append(d.RemovedAddresses, string(w.UID))
				continue
			}
			d.Workloads = append(d.Workloads, w)
		}
		for _, w := range d.Workloads {
			want[w.UID] = w
		}
		for _, uid := range d.RemovedAddresses {
			delete(want, mesh.WorkloadID(uid))
		}
		apply(t, s, d)
		kept = append(kept, taken{s.Snapshot(), view(s.Snapshot())})
	}
	fresh := newStore(t)
	apply(t, fresh, mesh.Delta{Workloads: slices.Collect(maps.Values(want))})
	if diff := cmp.Diff(view(fresh.Snapshot()), view(s.Snapshot())); diff != "" {
		t.Errorf("indexes (-built at once +by changes):\n%s", diff)
	}
	for i, k := range kept {
		if diff := cmp.Diff(k.view, view(k.snapshot)); diff != "" {
			t.Fatalf("snapshot %d changed after it was taken:\n%s", i, diff)
		}
	}
}
