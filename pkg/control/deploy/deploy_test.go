package deploy

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files anew")

var options = Options{
	XDSAddress: "10.0.0.2:15012", ServerName: "istiod.istio-system.svc", ClusterID: "Kubernetes", TrustDomain: "cluster.local",
	Image: "fairlead-waypoint", EnvoyImage: "envoyproxy/envoy:v1.40.0",
}

// A Gateway of the class becomes what runs its waypoint; others become nothing, and one
// that asks for what there is not is told so by name.
func TestGolden(t *testing.T) {
	in, err := os.ReadFile(filepath.Join("testdata", "gateways.in.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var gateways []*gatewayv1.Gateway
	for doc := range strings.SplitSeq(string(in), "\n---\n") {
		g := &gatewayv1.Gateway{}
		if err := yaml.UnmarshalStrict([]byte(doc), g); err != nil {
			t.Fatal(err)
		}
		gateways = append(gateways, g)
	}
	objects, problems := Objects(gateways, options)
	var out strings.Builder
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n" + string(text))
	}
	for _, name := range []string{"shop/many", "shop/strange"} {
		if problems[name] == nil {
			t.Errorf("nothing is said about %s", name)
			continue
		}
		out.WriteString("# " + name + ": " + problems[name].Error() + "\n")
	}
	golden := filepath.Join("testdata", "gateways.out.yaml")
	if *update {
		if os.Getenv("CI") == "true" {
			t.Fatal("golden files are not written in CI")
		}
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), out.String()); d != "" {
		t.Errorf("(-want +got), `go test -update` writes it anew:\n%s", d)
	}
}

// The directory holds just the objects of the last Write, also after a restart.
func TestWriterKeepsJustWhatIsWanted(t *testing.T) {
	dir := t.TempDir()
	objects, _ := Objects([]*gatewayv1.Gateway{
		{ObjectMeta: named("a"), Spec: gatewayv1.GatewaySpec{GatewayClassName: Class}},
		{ObjectMeta: named("b"), Spec: gatewayv1.GatewaySpec{GatewayClassName: Class}},
	}, options)
	w, err := NewWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(objects); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 6)
	again, err := NewWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 6)
	if err := again.Write(objects[:3]); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 3)
	if err := again.Write(nil); err != nil {
		t.Fatal(err)
	}
	expect(t, dir, 0)
}

func expect(t *testing.T, dir string, want int) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != want {
		t.Errorf("%d files, want %d: %v", len(files), want, files)
	}
}

func named(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: "shop"} }

// Names come from whoever may write a Gateway in a namespace: none of them leads out of
// the objects' directory, and none takes another Gateway's objects.
func TestNamesAreChecked(t *testing.T) {
	gateway := func(name string, annotations map[string]string) *gatewayv1.Gateway {
		return &gatewayv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: annotations}, Spec: gatewayv1.GatewaySpec{GatewayClassName: Class},
		}
	}
	dir := filepath.Join(t.TempDir(), "objects")
	w, err := NewWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	objects, problems := Objects([]*gatewayv1.Gateway{
		gateway("good", nil),
		gateway("out", map[string]string{nameOverride: "/../../out"}),
		gateway("account", map[string]string{accountOverride: "/../../account"}),
		gateway("upper", map[string]string{nameOverride: "Web"}),
		gateway("twice", map[string]string{nameOverride: "good"}),
	}, options)
	for _, name := range []string{"shop/out", "shop/account", "shop/upper", "shop/twice"} {
		if problems[name] == nil {
			t.Errorf("nothing is said about %s", name)
		}
	}
	if len(objects) != 3 {
		t.Errorf("%d objects, want those of one waypoint", len(objects))
	}
	if err := w.Write(objects); err != nil {
		t.Error(err)
	}
	outside, err := os.ReadDir(filepath.Dir(dir))
	if err != nil || len(outside) != 1 {
		t.Errorf("beside the directory: %v, %v", outside, err)
	}
}

// Statistics that the mesh's configuration or a Gateway's annotation chooses are known to
// its pods, the annotation's before the mesh's.
func TestStatistics(t *testing.T) {
	mesh := &meshv1alpha1.ProxyConfig_ProxyStatsMatcher{InclusionRegexps: []string{"cluster\\..*"}}
	for _, c := range []struct {
		annotation string
		mesh       *meshv1alpha1.ProxyConfig_ProxyStatsMatcher
		want       string
		wrong      bool
	}{
		{"", nil, "", false},
		{"", mesh, `{"inclusionRegexps":["cluster\\..*"]}`, false},
		{"concurrency: 2", mesh, `{"inclusionRegexps":["cluster\\..*"]}`, false},
		{"proxyStatsMatcher: {inclusionPrefixes: [cluster.outbound]}", mesh, `{"inclusionPrefixes":["cluster.outbound"]}`, false},
		{"proxyStatsMatcher: {}", mesh, "{}", false},
		{"proxyStatsMatcher: [cluster]", mesh, "", true},
	} {
		env, err := statistics(map[string]string{proxyConfig: c.annotation}, c.mesh)
		got := ""
		if len(env) == 1 {
			got = env[0].Value
		}
		if got != c.want || (err != nil) != c.wrong {
			t.Errorf("%q: %q, %v", c.annotation, got, err)
		}
	}
}
