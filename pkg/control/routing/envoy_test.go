package routing

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	setcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	setnetworkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/envoy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	realenvoy "github.com/fairlead-mesh/fairlead/test/envoy"
)

func bootstrap(t *testing.T, dir string, static *bootstrapv3.Bootstrap_StaticResources) string {
	t.Helper()
	// The limit for regular expressions is Istio's, as in a waypoint's bootstrap.
	limit := &structpb.Struct{Fields: map[string]*structpb.Value{"re2.max_program_size.error_level": structpb.NewNumberValue(maxProgram)}}
	config, err := protojson.Marshal(&bootstrapv3.Bootstrap{StaticResources: static, LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "limits", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: limit}}}}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "bootstrap.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Envoy reads the routes of every case, and of mutants of them.
func TestEnvoyTakesGolden(t *testing.T) {
	program := realenvoy.Need(t)
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	static := &bootstrapv3.Bootstrap_StaticResources{}
	put := func(name string, text []byte) {
		out, err := translate.Translate(source.Parse([]source.File{{Name: "base.yaml", Data: base(t)}, {Name: "in.yaml", Data: text}}, nil), translate.Options{ClusterID: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range ports(t, New(out.Model, nil), subsets{}) {
			if len(p.config.VirtualHosts[0].Routes) > 1 {
				name := name + " " + p.config.Name
				static.Listeners = append(static.Listeners, listener(name, "@"+name, p.config, ""))
			}
		}
	}
	for _, in := range inputs {
		text, err := os.ReadFile(in)
		if err != nil {
			t.Fatal(err)
		}
		put(filepath.Base(in), text)
		for i := range mutations / len(inputs) {
			put(fmt.Sprintf("%s %d", filepath.Base(in), i), mutant(t, random, in))
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, program, "--mode", "validate", "--log-level", "error", "-c", bootstrap(t, t.TempDir(), static)).CombinedOutput(); err != nil || !bytes.Contains(out, []byte("OK")) {
		t.Errorf("Envoy refuses the routes: %v\n%s", err, out)
	}
}

// listener serves routes at a Unix socket, for callers of a principal if one is named.
func listener(name, path string, routes *routev3.RouteConfiguration, principal string) *listenerv3.Listener {
	filter := func(name string, config proto.Message) *hcmv3.HttpFilter {
		return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(config)}}
	}
	network := func(name string, config proto.Message) *listenerv3.Filter {
		return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(config)}}
	}
	var filters []*listenerv3.Filter
	if principal != "" {
		filters = append(filters, network("envoy.filters.network.set_filter_state", &setnetworkv3.Config{OnNewConnection: []*setcommonv3.FilterStateValue{{
			Key: &setcommonv3.FilterStateValue_ObjectKey{ObjectKey: PrincipalKey}, FactoryKey: "envoy.hashable_string",
			Value: &setcommonv3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
				TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: principal}}}}},
		}}}))
	}
	filters = append(filters, network("envoy.filters.network.http_connection_manager", &hcmv3.HttpConnectionManager{
		StatPrefix: "test", Tracing: &hcmv3.HttpConnectionManager_Tracing{}, RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routes},
		HttpFilters: []*hcmv3.HttpFilter{filter(faultFilter, &faultv3.HTTPFault{}), filter(corsFilter, &corsv3.Cors{}), filter("envoy.filters.http.router", &routerv3.Router{})},
	}))
	return &listenerv3.Listener{Name: name, Address: pipe(path), FilterChains: []*listenerv3.FilterChain{{Filters: filters}}}
}

func pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

// world is a running Envoy with the routes of one service, at a socket for each
// principal, and backends that answer with the name of their cluster.
type world struct {
	t   *testing.T
	dir string
}

func start(t *testing.T, config *routev3.RouteConfiguration, backends []string, principals map[string]string) *world {
	t.Helper()
	program := realenvoy.Need(t)
	dir, err := os.MkdirTemp("", "routes") // the path of a Unix socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t, dir}
	static := &bootstrapv3.Bootstrap_StaticResources{}
	for name, principal := range principals {
		static.Listeners = append(static.Listeners, listener(name, filepath.Join(dir, name), config, principal))
	}
	for i, cluster := range backends {
		socket := filepath.Join(dir, fmt.Sprintf("b%d", i))
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", cluster, r.URL.Path)
		})}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { _ = server.Close() })
		static.Clusters = append(static.Clusters, &clusterv3.Cluster{Name: cluster, LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: cluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket)}}}}}}}})
	}
	command := exec.Command(program, "-c", bootstrap(t, dir, static), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = command.Process.Kill(); _ = command.Wait() })
	for name := range principals {
		deadline := time.Now().Add(30 * time.Second)
		for {
			c, err := net.Dial("unix", filepath.Join(dir, name))
			if err == nil {
				c.Close()
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("Envoy does not listen: %s", out.String())
			}
			<-time.After(20 * time.Millisecond)
		}
	}
	return w
}

// get is the answer to a request of a caller: the body, and the cookie that came.
func (w *world) get(caller, path string, header http.Header) (body, cookie string) {
	w.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(w.dir, caller))
	}}}
	r, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://reviews"+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for name := range header {
		r.Header[name] = header[name]
	}
	answer, err := client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if answer.StatusCode != http.StatusOK {
		return fmt.Sprint(answer.StatusCode), ""
	}
	cookie, _, _ = strings.Cut(answer.Header.Get("Set-Cookie"), ";")
	return string(text), cookie
}

// A user who comes without a cookie is given one and stays where the first request
// went, by a real Envoy; as the weight moves he goes from v1 to v2 and never back.
func TestEnvoyKeepsUsers(t *testing.T) {
	realenvoy.Need(t)
	var cookies []string
	on := map[string]string{}
	v1, v2 := envoy.ClusterName(envoy.HTTP, "reviews.default.svc.cluster.local", 9080, "v1"), envoy.ClusterName(envoy.HTTP, "reviews.default.svc.cluster.local", 9080, "v2")
	for step, weight := range []int{30, 60, 100} {
		text := fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default, annotations: {fairlead.dev/session-affinity: cookie=user;ttl=24h}}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}, weight: %d}, {destination: {host: reviews, subset: v1}, weight: %d}]}]}
`, weight, 100-weight)
		config := ports(t, New(parse(t, base(t), []byte(text)), nil), subsets{})[envoy.ClusterName(envoy.HTTP, "reviews.default.svc.cluster.local", 9080, "")].config
		w := start(t, config, []string{v1, v2}, map[string]string{"any": ""})
		count := 0
		if step == 0 {
			for range 150 {
				first, cookie := w.get("any", "/", nil)
				if cookie == "" {
					t.Fatal("a newcomer was given no cookie")
				}
				cookies, on[cookie] = append(cookies, cookie), first
			}
		}
		for _, cookie := range cookies {
			for range 2 {
				now, given := w.get("any", "/", http.Header{"Cookie": {"a=b; " + cookie}})
				switch {
				case given != "":
					t.Fatal("who has a cookie was given another")
				case step == 0 && now != on[cookie], strings.HasPrefix(on[cookie], v2) && now != on[cookie]:
					t.Fatalf("step %d: a user moved from %s to %s", step, on[cookie], now)
				}
				on[cookie] = now
			}
			if strings.HasPrefix(on[cookie], v2) {
				count++
			}
		}
		// Six standard deviations of 150 users are 0.24 at most.
		if share := float64(count) / float64(len(cookies)); share < float64(weight)/100-0.24 || share > float64(weight)/100+0.24 {
			t.Errorf("weight %d: %.2f of the users are on v2", weight, share)
		}
	}
}

// A consumer route is in effect for callers of its namespace, and sourceNamespace
// and sourceLabels for those that they name.
func TestEnvoyTellsCallers(t *testing.T) {
	realenvoy.Need(t)
	text := httpRoute("other", "consumer", january, "{name: c, matches: [{path: {value: /c}}], backendRefs: [{name: reviews, namespace: default, port: 9080}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]}") + `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - {match: [{sourceNamespace: other, uri: {prefix: /n}}], route: [{destination: {host: reviews-v1}}]}
  - {match: [{sourceLabels: {app: productpage}, uri: {prefix: /l}}], route: [{destination: {host: reviews-v2}}]}
  - route: [{destination: {host: ratings}}]
`
	config := ports(t, New(parse(t, base(t), []byte(text)), nil), nil)[envoy.ClusterName(envoy.HTTP, "reviews.default.svc.cluster.local", 9080, "")].config
	name := func(service string) string {
		return envoy.ClusterName(envoy.HTTP, service+".default.svc.cluster.local", 9080, "")
	}
	w := start(t, config, []string{name("reviews"), name("reviews-v1"), name("reviews-v2"), name("ratings")}, map[string]string{
		"curl": "spiffe://cluster.local/ns/other/sa/curl", "echo": "spiffe://cluster.local/ns/other/sa/echo",
		"productpage": "spiffe://cluster.local/ns/default/sa/productpage", "others": "spiffe://cluster.local/ns/others/sa/other/sa/x", "nobody": "",
	})
	for _, tc := range []struct{ caller, path, want string }{
		{"curl", "/c/x", "reviews /x"}, {"curl", "/c", "reviews /"}, {"curl", "/cx", "ratings /cx"}, {"echo", "/c", "reviews /"},
		{"productpage", "/c", "ratings /c"}, {"others", "/c", "ratings /c"}, {"nobody", "/c", "ratings /c"},
		{"curl", "/n", "reviews-v1 /n"}, {"productpage", "/n", "ratings /n"}, {"nobody", "/n", "ratings /n"},
		{"productpage", "/l", "reviews-v2 /l"}, {"curl", "/l", "reviews-v2 /l"}, {"echo", "/l", "ratings /l"}, {"nobody", "/l", "ratings /l"},
	} {
		service, path, _ := strings.Cut(tc.want, " ")
		if got, _ := w.get(tc.caller, tc.path, nil); got != name(service)+" "+path {
			t.Errorf("%s calls %s: %s, want %s", tc.caller, tc.path, got, tc.want)
		}
	}
}
