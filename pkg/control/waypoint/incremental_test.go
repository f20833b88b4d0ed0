package waypoint

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// kindsOfTexts are objects in variants: %[1]s is a name, %[2]d a number that makes one
// form of it differ from another.
var kindsOfTexts = []string{
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n}, spec: {clusterIP: 10.96.0.%[2]d, selector: {app: %[1]s}, ports: [{name: http, port: 80}, {name: tcp-db, port: 81}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n}, spec: {clusterIP: 10.96.0.1%[2]d, selector: {app: %[1]s}, ports: [{name: x, port: 80}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n}, spec: {clusterIP: 10.96.0.1, selector: {v: v%[2]d}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp-db, port: 8%[2]d}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n, labels: {istio.io/use-waypoint: none}}, spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, publishNotReadyAddresses: true, selector: {app: %[1]s}, ports: [{name: http, port: 80, targetPort: 8%[2]d}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n, labels: {istio.io/use-waypoint: foreign}}, spec: {clusterIP: 10.96.0.%[2]d, selector: {app: %[1]s}, trafficDistribution: PreferClose, ports: [{name: http, port: 80}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n, labels: {istio.io/use-waypoint: workloads}}, spec: {clusterIPs: [10.96.2.%[2]d, 'fd00::%[2]d'], clusterIP: 10.96.2.%[2]d, selector: {app: b}, ports: [{name: http, port: 80}, {name: tcp-db, port: 81}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n}, spec: {clusterIP: 10.96.0.%[2]d, ports: [{name: http, port: 80}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n, labels: {gateway.networking.k8s.io/gateway-name: workloads}}, spec: {clusterIP: 10.96.0.%[2]d, ports: [{name: http, port: 80}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: %[1]s, namespace: n}, spec: {type: ExternalName, externalName: e%[2]d.example.com}}",
	"{apiVersion: v1, kind: Pod, metadata: {name: p%[1]s, namespace: n, labels: {app: %[1]s, v: v%[2]d}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: web, containerPort: 8%[2]d}]}]}, status: {podIP: 10.1.0.%[2]d%[2]d, conditions: [{type: Ready, status: 'True'}]}}",
	"{apiVersion: v1, kind: Pod, metadata: {name: p%[1]s, namespace: n, labels: {app: %[1]s, v: v%[2]d}, annotations: {ambient.istio.io/redirection: enabled}}, spec: {nodeName: n%[2]d, serviceAccountName: s%[2]d}, status: {podIP: 10.1.1.%[2]d%[2]d}}",
	"{apiVersion: v1, kind: Pod, metadata: {name: q%[1]s, namespace: n, labels: {app: %[1]s}}, status: {podIP: 10.1.2.%[2]d, phase: Running}}",
	"{apiVersion: v1, kind: Pod, metadata: {name: q%[1]s, namespace: n, labels: {app: %[1]s, istio.io/use-waypoint: workloads}}, status: {podIP: 10.1.3.%[2]d}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v%[1]s, namespace: n}, spec: {hosts: [%[1]s], http: [{match: [{uri: {prefix: /%[2]d}}], route: [{destination: {host: %[1]s}}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v%[1]s, namespace: n}, spec: {hosts: [%[1]s], http: [{match: [{uri: {prefix: /%[2]d}}], route: [{destination: {host: b, subset: v%[2]d}}]}, {route: [{destination: {host: %[1]s}}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: w%[1]s, namespace: n}, spec: {hosts: ['*.n.svc.cluster.local', b], http: [{route: [{destination: {host: c}}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: w%[1]s, namespace: n}, spec: {hosts: [%[1]s], http: [{match: [{sourceLabels: {v: v%[2]d}}], route: [{destination: {host: c}}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: x%[1]s, namespace: n}, spec: {hosts: [%[1]s], http: [{delegate: {name: d}}], tcp: [{match: [{port: 81}], route: [{destination: {host: b, port: {number: 81}}}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: d, namespace: n}, spec: {http: [{match: [{uri: {prefix: /d%[2]d}}], route: [{destination: {host: %[1]s}}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h%[1]s, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s}], rules: [{matches: [{path: {value: /h%[2]d}}], backendRefs: [{name: b, port: 80}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h%[1]s, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: a}, {group: '', kind: Service, name: %[1]s, port: 80}], rules: [{backendRefs: [{name: o, namespace: other, port: 80}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: c%[1]s, namespace: other}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s, namespace: n}], rules: [{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x, value: v%[2]d}]}}], backendRefs: [{name: o, port: 80}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {name: g%[1]s, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s}], rules: [{matches: [{method: {service: s%[2]d}}], backendRefs: [{name: %[1]s, port: 80}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: t%[1]s, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s, port: 81}], rules: [{backendRefs: [{name: b, port: 81}]}]}}",
	"{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: y%[1]s, namespace: n}, spec: {hosts: [%[1]s], tcp: [{match: [{port: 81, sourceLabels: {v: v%[2]d}}, {port: 81, sourceNamespace: other}], route: [{destination: {host: b, port: {number: 81}}}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: TCPRoute, metadata: {name: u%[1]s, namespace: other}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s, namespace: n, port: 81}], rules: [{backendRefs: [{name: %[1]s, namespace: n, port: 81}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: s%[1]s, namespace: n}, spec: {parentRefs: [{group: '', kind: Service, name: %[1]s}], rules: [{backendRefs: [{name: b, port: 80}, {name: %[1]s, port: 80, weight: %[2]d, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: c, port: 80}}}]}]}, {matches: [{path: {value: /g}}], filters: [{type: ExtensionRef, extensionRef: {group: e.com, kind: G, name: g}}]}]}}",
	"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: y%[1]s, namespace: n}, spec: {targetRefs: [{group: '', kind: Service, name: %[1]s}], action: DENY, rules: [{to: [{operation: {paths: [/%[2]d]}}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: TLSRoute, metadata: {name: t%[1]s, namespace: n}, spec: {hostnames: [h%[2]d.example.com], parentRefs: [{group: '', kind: Service, name: %[1]s, port: 81}], rules: [{backendRefs: [{name: b, port: 81}]}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: ReferenceGrant, metadata: {name: r%[1]s, namespace: other}, spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: n}], to: [{group: '', kind: Service}]}}",
	"{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r%[1]s, namespace: n}, spec: {host: %[1]s, subsets: [{name: v%[2]d, labels: {v: v%[2]d}}]}}",
	"{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r%[1]s, namespace: n}, spec: {host: %[1]s, trafficPolicy: {outlierDetection: {consecutive5xxErrors: %[2]d}, loadBalancer: {consistentHash: {httpHeaderName: x}}}}}",
	"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z%[1]s, namespace: n}, spec: {selector: {matchLabels: {v: v%[2]d}}, rules: [{from: [{source: {namespaces: [n]}}]}]}}",
	"{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: z%[1]s, namespace: n}, spec: {targetRefs: [{group: '', kind: Service, name: %[1]s}], rules: [{to: [{operation: {paths: [/%[2]d]}}]}]}}",
	"{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: z%[1]s, namespace: n}, spec: {selector: {matchLabels: {app: %[1]s}}, mtls: {mode: STRICT}}}",
	"{apiVersion: telemetry.istio.io/v1, kind: Telemetry, metadata: {name: z%[1]s, namespace: n}, spec: {accessLogging: [{disabled: true}]}}",
	"{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e%[1]s, namespace: n}, spec: {hosts: [e%[1]s.example.com], resolution: STATIC, workloadSelector: {labels: {app: %[1]s}}, ports: [{number: 80, name: http, protocol: HTTP}]}}",
	"{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e%[1]s, namespace: n}, spec: {hosts: [e%[1]s.example.com], addresses: [240.0.0.%[2]d], resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}}",
	"{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: e%[1]s, namespace: n}, spec: {address: 10.1.0.%[2]d%[2]d, labels: {app: %[1]s}}}",
	"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: l%[1]s, namespace: n, labels: {kubernetes.io/service-name: manual}}, addressType: IPv4, ports: [{name: http, port: 8%[2]d}], endpoints: [{addresses: [10.1.0.%[2]d%[2]d], targetRef: {kind: Pod, name: p%[1]s}}, {addresses: [10.9.0.%[2]d]}]}",
	"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: m%[1]s, namespace: n, labels: {kubernetes.io/service-name: %[1]s}}, addressType: IPv4, ports: [{name: http, port: 8%[2]d}], endpoints: [{addresses: [10.1.2.%[2]d]}, {addresses: [10.9.1.%[2]d]}]}",
	"{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: k%[1]s, namespace: other}, spec: {hosts: [k%[1]s.example.com], addresses: [10.1.0.%[2]d%[2]d], resolution: STATIC, ports: [{number: 80, name: http, protocol: HTTP}]}}",
	"{apiVersion: v1, kind: Node, metadata: {name: n%[2]d, labels: {topology.kubernetes.io/region: r%[2]d}}}",
	"{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}, data: {mesh: 'trustDomain: td%[2]d'}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: workloads, namespace: n, labels: {istio.io/waypoint-for: all}, annotations: {x: '%[2]d'}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: workloads, namespace: n, labels: {fairlead.dev/waypoint: required, istio.io/waypoint-for: all}}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}",
}

// always is there in every state.
var always = []string{
	"{apiVersion: v1, kind: Namespace, metadata: {name: n, labels: {istio.io/use-waypoint: waypoint}}}",
	"{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r1}}}",
	"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: waypoint, namespace: n}, spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: waypoint, namespace: n, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}, spec: {clusterIP: 10.97.0.1, ports: [{port: 15008}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: workloads, namespace: n, labels: {gateway.networking.k8s.io/gateway-name: workloads}}, spec: {clusterIP: 10.97.0.2, ports: [{port: 15008}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: manual, namespace: n}, spec: {clusterIP: 10.96.8.1, ports: [{name: http, port: 80}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: o, namespace: other}, spec: {clusterIP: 10.96.9.1, selector: {app: o}, ports: [{name: http, port: 80}]}}",
}

// beside are there too: a Gateway of others' that Services are bound to, and an
// EndpointSlice that tells more of a Service than its pods do.
var beside = []string{
	"{apiVersion: gateway.networking.k8s.io/v1, kind: Gateway, metadata: {name: foreign, namespace: n}, spec: {gatewayClassName: other, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}}",
	"{apiVersion: v1, kind: Service, metadata: {name: foreign, namespace: n, labels: {gateway.networking.k8s.io/gateway-name: foreign}}, spec: {clusterIP: 10.97.0.3, ports: [{port: 15008}]}}",
	"{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: more, namespace: n, labels: {kubernetes.io/service-name: c}}, addressType: IPv4, ports: [{name: http, port: 80}], endpoints: [{addresses: [10.9.2.1]}]}",
}

// state puts objects together as package source does: of a kind of which nothing
// changed it is the slice of the state before.
type state struct {
	read   map[string]*source.Objects // by text
	texts  map[string]string          // by kind and name
	last   *source.Objects
	common *source.Objects
}

func newState() *state {
	return &state{read: map[string]*source.Objects{}, texts: map[string]string{}, common: source.Parse(nil, nil)}
}

func (s *state) objects(t *testing.T) *source.Objects {
	t.Helper()
	out := &source.Objects{Mesh: s.common.Mesh, Settings: s.common.Settings}
	v := reflect.ValueOf(out).Elem()
	for _, key := range slices.Sorted(maps.Keys(s.texts)) {
		text := s.texts[key]
		if s.read[text] == nil {
			s.read[text] = source.Parse([]source.File{{Name: key + ".yaml", Data: []byte(text)}}, nil)
			if p := s.read[text].Problems; len(p) > 0 {
				t.Fatalf("%s: %v", text, p)
			}
		}
		if strings.Contains(text, "kind: ConfigMap") {
			out.Mesh = s.read[text].Mesh
		}
		of := reflect.ValueOf(s.read[text]).Elem()
		for i := range v.NumField() {
			if f := v.Field(i); f.Kind() == reflect.Slice {
				f.Set(reflect.AppendSlice(f, of.Field(i)))
			}
		}
	}
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.Slice || f.Len() == 0 || f.Type().Elem().Kind() != reflect.Pointer {
			continue
		}
		sorted := make([]reflect.Value, f.Len())
		for j := range sorted {
			sorted[j] = reflect.ValueOf(f.Index(j).Interface())
		}
		slices.SortFunc(sorted, func(a, b reflect.Value) int {
			x, y := a.Interface().(metav1.Object), b.Interface().(metav1.Object)
			return cmp.Or(cmp.Compare(x.GetNamespace(), y.GetNamespace()), cmp.Compare(x.GetName(), y.GetName()))
		})
		for j := range sorted {
			f.Index(j).Set(sorted[j])
		}
		if s.last == nil {
			continue
		}
		before, same := reflect.ValueOf(s.last).Elem().Field(i), true
		for j := range f.Len() {
			same = same && before.Len() == f.Len() && before.Index(j).Pointer() == f.Index(j).Pointer()
		}
		if same {
			f.Set(before)
		}
	}
	s.last = out
	return out
}

// most is how many of kindsOfTexts, the first, change most: Services, pods and routes.
const most = 23

// edit makes one object another, or takes it away; only says that it is one of those that
// change most.
func (s *state) edit(r *rand.Rand, only bool) string {
	i := r.IntN(len(kindsOfTexts))
	if only || r.IntN(2) == 0 {
		i = r.IntN(most)
	}
	name := string('a' + rune(r.IntN(4)))
	text := fmt.Sprintf(kindsOfTexts[i]+"%[1]s%[2]d", name, 1+r.IntN(3))
	text = text[:len(text)-len(name)-1]
	head := text[:strings.Index(text, "namespace")+1]
	if !strings.Contains(text, "namespace:") {
		head = text[:strings.Index(text, "name: n")+8]
	}
	if r.IntN(4) == 0 {
		delete(s.texts, head)
		return "without " + head
	}
	s.texts[head] = text
	return text
}

// after is what was there before with what is said to have changed.
func after(g push.Generated) push.Resources {
	out := push.Resources{}
	for typeURL, messages := range g.Before {
		out[typeURL] = maps.Clone(messages)
		maps.Copy(out[typeURL], g.Changed[typeURL])
	}
	return out
}

// afterChanges are the addresses of those who had some before and are told of an output.
func afterChanges(before map[string]*workloadapi.Address, out translate.Output) map[string]*workloadapi.Address {
	after, come := map[string]*workloadapi.Address{}, out.Addresses
	if out.Changes != nil {
		after, come = maps.Clone(before), out.Changes.Addresses
		for _, name := range out.Changes.Gone {
			delete(after, name)
		}
	}
	for _, a := range come {
		after[translate.AddressName(a)] = a
	}
	return after
}

func sameEndpoints(a, b []*model.Endpoint) bool {
	return slices.EqualFunc(a, b, func(a, b *model.Endpoint) bool { return reflect.DeepEqual(a, b) })
}

func equal[M proto.Message](a, b M) bool { return proto.Equal(a, b) }

// What comes of one state after another, over thousands of edits of objects of every
// kind, is what would come of each state by itself: for nodes, for waypoints of every
// kind of client, and in statuses.
func TestStatesAfterOneAnotherAreAsAlone(t *testing.T) {
	opts := translate.Options{ClusterID: "c1"}
	clients := []push.Consumer{{Own: true, Region: "r1"}, {Own: true}, {}, {Istio: true, Region: "r2"}}
	rounds, steps := 4, 250
	if testing.Short() {
		rounds = 2
	}
	again, services, others := 0, 0, 0
	for round := range rounds {
		r := rand.New(rand.NewPCG(uint64(round), 7))
		s := newState()
		for i, text := range slices.Concat(always, beside) {
			s.texts[fmt.Sprint(i)] = text
		}
		for _, name := range []string{"a", "b", "c"} {
			s.texts["first "+name] = fmt.Sprintf("{apiVersion: v1, kind: Service, metadata: {name: s%s, namespace: n}, spec: {clusterIP: 10.96.1.1%d, selector: {app: %s}, ports: [{name: http, port: 80}]}}", name, name[0]-'a', name)
		}
		translator := translate.NewTranslator(opts)
		var last *Translation
		var told map[string]*workloadapi.Address // nodes, by what is said to have changed
		for step := range steps {
			said := ""
			for range 1 + r.IntN(2)*r.IntN(3) {
				said += "\n" + s.edit(r, round%2 == 0)
			}
			before := s.last
			in := s.objects(t)
			out, err := translator.Translate(in)
			if err != nil {
				t.Fatal(err)
			}
			if out.Changes != nil {
				again++
				if !source.Same(before.Services, in.Services) {
					services++
				}
			}
			want, err := translate.Translate(in, opts)
			if err != nil {
				t.Fatal(err)
			}
			alike := func(what string, want, got any) {
				t.Helper()
				if diff := gocmp.Diff(want, got, protocmp.Transform(), cmpopts.EquateEmpty()); diff != "" {
					t.Fatalf("round %d, step %d: %s (-want +got):\n%s\nafter%s", round, step, what, diff, said)
				}
			}
			if !slices.EqualFunc(want.Addresses, out.Addresses, equal) || !slices.EqualFunc(want.Policies, out.Policies, equal) {
				alike("addresses", want.Addresses, out.Addresses)
				alike("policies", want.Policies, out.Policies)
			}
			told = afterChanges(told, out)
			if !maps.EqualFunc(told, afterChanges(nil, want), equal) {
				alike("what is said to have changed", afterChanges(nil, want), told)
			}
			if !slices.EqualFunc(want.Model.Endpoints, out.Model.Endpoints, sameEndpoints) {
				alike("endpoints", want.Model.Endpoints, out.Model.Endpoints)
			}
			last = New(out, last)
			alone := New(want, nil)
			if len(want.Model.Waypoints) != len(out.Model.Waypoints) {
				t.Fatalf("%d waypoints, want %d", len(out.Model.Waypoints), len(want.Model.Waypoints))
			}
			for i, w := range want.Model.Waypoints {
				for _, c := range clients[r.IntN(2):] {
					fresh, err := alone.Resources(w, c)
					if err != nil {
						t.Fatal(err)
					}
					wantAll := fresh.All
					made, err := last.Resources(out.Model.Waypoints[i], c)
					if err != nil {
						t.Fatal(err)
					}
					all := made.All
					if made.Before != nil {
						others++
						if !maps.EqualFunc(all, after(made), maps.Equal) {
							t.Fatalf("round %d, step %d: what is said to have changed is not all that has, after%s", round, step, said)
						}
					}
					if maps.EqualFunc(wantAll, all, func(a, b map[string]proto.Message) bool { return maps.EqualFunc(a, b, equal) }) {
						continue
					}
					alike(fmt.Sprintf("resources of %s for %+v", w.Key.Name, c), wantAll, all)
				}
			}
			if want, got := alone.Status(), last.Status(); !reflect.DeepEqual(want, got) {
				alike("statuses", want, got)
			}
		}
	}
	if others < rounds*steps/4 {
		t.Errorf("only %d configurations were made of those before", others)
	}
	if services < rounds*steps/40 {
		t.Errorf("only %d states of other Services were made of those before", services)
	}
	if again < rounds*steps/4 {
		t.Errorf("only %d of %d states were made of those before", again, rounds*steps)
	}
}
