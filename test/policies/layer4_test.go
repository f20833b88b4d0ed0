package policies

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	securityapi "istio.io/api/security/v1beta1"
	typeapi "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/rbac"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/peers"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

const pods = `
apiVersion: v1
kind: Namespace
metadata: {name: a, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: w}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: a, labels: {istio.io/waypoint-for: all}}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
status: {addresses: [{value: 10.96.0.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: s, namespace: a}
spec: {clusterIP: 10.96.0.1, selector: {app: s}, ports: [{name: tcp, port: 80, targetPort: 9080}]}
`

func pod(n int) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Pod
metadata: {name: s-%[1]d, namespace: a, uid: u%[1]d, labels: {app: s, n: "%[1]d"}, annotations: {ambient.istio.io/redirection: enabled}}
spec: {serviceAccountName: s, containers: [{name: c}]}
status: {phase: Running, podIP: 10.0.0.%[1]d, podIPs: [{ip: 10.0.0.%[1]d}], conditions: [{type: Ready, status: "True"}]}
`, n)
}

// layer4 is a random policy that nodes can decide.
func (d dice) layer4(n int) *securityv1.AuthorizationPolicy {
	p := d.policy()
	p.Name, p.Spec.TargetRefs = fmt.Sprintf("p%d", n), nil
	p.Spec.Action = []securityapi.AuthorizationPolicy_Action{securityapi.AuthorizationPolicy_ALLOW, securityapi.AuthorizationPolicy_DENY}[d.IntN(2)]
	switch d.IntN(4) {
	case 0:
		p.Namespace = source.RootNamespace
	case 1: // the namespace
	default:
		p.Spec.Selector = &typeapi.WorkloadSelector{MatchLabels: map[string]string{"n": fmt.Sprint(1 + d.IntN(3))}}
	}
	for _, r := range p.Spec.Rules {
		for _, f := range r.From {
			switch d.IntN(12) { // a rule on the waypoint itself
			case 0:
				f.Source.Principals = append(f.Source.Principals, "cluster.local/ns/a/sa/w")
			case 1:
				f.Source.NotPrincipals = append(f.Source.NotPrincipals, "cluster.local/ns/a/sa/w")
			case 2:
				f.Source.ServiceAccounts = append(f.Source.ServiceAccounts, "w")
			}
			f.Source.RequestPrincipals, f.Source.RemoteIpBlocks, f.Source.NotRemoteIpBlocks = nil, nil, nil
			f.Source.TrustDomains, f.Source.NotTrustDomains = nil, nil
			f.Source.IpBlocks = d.some(blocks...)
		}
		for _, t := range r.To {
			t.Operation = &securityapi.Operation{Ports: d.some(numbers...), NotPorts: d.some(numbers...)}
		}
		r.When = slices.DeleteFunc(r.When, func(w *securityapi.Condition) bool {
			return !slices.Contains([]string{"source.ip", "source.namespace", "source.principal", "source.serviceAccount", "destination.port", "destination.ip"}, w.Key)
		})
	}
	return p
}

// TestLayer4HoldsBehindAWaypoint compares the filters that another proxy gets with
// what our engine decides on each endpoint, both on the original caller.
func TestLayer4HoldsBehindAWaypoint(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := dice{rand.New(rand.NewPCG(seed, 2))}
	objects := source.Parse([]source.File{{Name: "a.yaml", Data: []byte(pods + pod(1) + pod(2) + pod(3))}}, nil)
	verdicts, stricter := map[bool]int{}, 0
	for range 3000 {
		objects.AuthorizationPolicies = nil
		for n := range 1 + d.IntN(4) {
			if p := d.layer4(n); p.Spec.Action == securityapi.AuthorizationPolicy_ALLOW || len(p.Spec.Rules) > 0 {
				objects.AuthorizationPolicies = append(objects.AuthorizationPolicies, p)
			}
		}
		out, err := translate.Translate(objects, translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		w := out.Model.Waypoints[0]
		p := rbac.New(out.Model, rbac.NewLayer4(out.Policies, out.Addresses))
		view := engineOf(t, out, w)
		through, direct := networkFilters(t, p, w, w.Services[0], &w.Services[0].Ports[0]), networkFilters(t, p, w, nil, nil)
		for range 8 {
			c := d.call(false)
			everywhere := true
			for i, e := range w.Workloads {
				byNode := view.Authorize(&streaminfo.Connection{
					Remote: addrPort(c.direct), PeerURISAN: c.identity,
				}, netip.AddrPortFrom(e.Address, 9080), true) == nil
				everywhere = everywhere && byNode
				one := *c
				one.to = netip.AddrPortFrom(e.Address, 9080)
				if got := direct.allowed(&one); got != byNode {
					show(t, objects.AuthorizationPolicies)
					t.Fatalf("workload %d, %+v: the filters allow %v, our engine %v", i, one, got, byNode)
				}
			}
			c.to = netip.MustParseAddrPort("10.96.0.1:80")
			got := through.allowed(c)
			verdicts[got]++
			if got && !everywhere {
				show(t, objects.AuthorizationPolicies)
				t.Fatalf("%+v: the filters allow what our engine refuses at an endpoint", c)
			}
			if !got && everywhere {
				stricter++
			}
		}
	}
	if verdicts[true] < 1000 || verdicts[false] < 1000 || stricter > 1200 {
		t.Errorf("the calls are one-sided or the filters too strict: %v, stricter %d times", verdicts, stricter)
	}
}

// engineOf is our waypoint's own view of the same state, by which it decides on
// the endpoint that it chose.
func engineOf(t *testing.T, out translate.Output, w *model.Waypoint) *peers.View {
	t.Helper()
	known, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	var delta mesh.Delta
	for _, a := range out.Addresses {
		if a.GetWorkload() == nil {
			continue
		}
		workload, err := xds.FromWorkload(a.GetWorkload())
		if err != nil {
			t.Fatal(err)
		}
		delta.Workloads = append(delta.Workloads, workload)
	}
	for _, wire := range out.Policies {
		p, err := xds.FromAuthorization(wire)
		if err != nil {
			t.Fatal(err)
		}
		delta.Policies = append(delta.Policies, p)
	}
	if err := known.Apply(delta); err != nil {
		t.Fatal(err)
	}
	return peers.NewView(known, "", mesh.Identity{TrustDomain: out.Model.TrustDomain, Namespace: w.Key.Namespace, ServiceAccount: w.ServiceAccount})
}

func show(t *testing.T, policies []*securityv1.AuthorizationPolicy) {
	t.Helper()
	for _, p := range policies {
		t.Logf("%s/%s %s", p.Namespace, p.Name, protojson.Format(&p.Spec))
	}
}

// TestRuleOnTheWaypointItself holds that "only through the waypoint" does not
// refuse what came through it, whoever called.
func TestRuleOnTheWaypointItself(t *testing.T) {
	for _, rules := range []string{
		"{action: ALLOW, rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/w]}}]}]}",
		"{action: ALLOW, rules: [{from: [{source: {serviceAccounts: [a/w]}}]}]}",
		"{action: DENY, rules: [{from: [{source: {notPrincipals: [cluster.local/ns/a/sa/w]}}]}]}",
	} {
		m, p := world(t, pods+pod(1)+"\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: only, namespace: a}\nspec: "+rules)
		w := m.Waypoints[0]
		c := &call{identity: "spiffe://cluster.local/ns/b/sa/x", direct: netip.MustParseAddr("10.0.0.7"), to: netip.MustParseAddrPort("10.96.0.1:80")}
		if f := networkFilters(t, p, w, w.Services[0], &w.Services[0].Ports[0]); len(f.rules) == 0 || !f.allowed(c) {
			t.Errorf("%s: a caller is refused at the waypoint, through which it must come", rules)
		}
	}
}
