package operator

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
)

func file(text string) []source.File {
	return []source.File{{Name: "mesh.yaml", Data: []byte(text)}}
}

const head = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec:\n"

// seedFile is one of the tutorial's, or the test is skipped.
func seedFile(t *testing.T, name string) source.File {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "shared", "seed", "manifests", name))
	if err != nil {
		t.Skip("the tutorial's manifests are not here")
	}
	return source.File{Name: name, Data: data}
}

func value(r *Request, path string) any {
	v, _, _ := unstructured.NestedFieldNoCopy(r.Values, strings.Split(path, ".")...)
	return v
}

func render(r *Request) error {
	if r.Profile == "" {
		r.Profile = chart.DefaultProfile
	}
	_, err := chart.Release{Profile: r.Profile, Values: r.Values, Version: "v9"}.Render()
	return r.Locate(err)
}

// The tutorial's production install is understood: what it sizes is sized, and each of
// its settings that has no effect is named with its line.
func TestTutorialInstall(t *testing.T) {
	r, err := Read([]source.File{seedFile(t, "01-istio-install.yaml")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := chart.Release{Profile: r.Profile, Values: r.Values, Version: "v9"}.Render()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		text, _ := json.Marshal(o.Object)
		for kind, want := range map[string]string{"DaemonSet": `"--access-log=json"`, "HorizontalPodAutoscaler": `"maxReplicas":5`, "ConfigMap": `mode: REGISTRY_ONLY`} {
			if o.GetKind() == kind && !strings.Contains(string(text), want) {
				t.Errorf("%s has no %s: %s", kind, want, text)
			}
		}
	}
	if r.Profile != "production" {
		t.Errorf("profile %q", r.Profile)
	}
	for path, want := range map[string]any{
		"controlPlane.autoscale.enabled": true, "controlPlane.autoscale.minReplicas": 2, "controlPlane.autoscale.maxReplicas": 5,
		"controlPlane.resources.limits.memory": "1Gi", "meshConfig.accessLogEncoding": "JSON",
	} {
		if got := value(r, path); got != want {
			t.Errorf("%s is %v, want %v", path, got, want)
		}
	}
	var said []string
	for _, n := range r.Notes {
		said = append(said, n.String())
	}
	for _, want := range []string{
		"01-istio-install.yaml:13: spec.meshConfig.defaultConfig: kept, without effect",
		"01-istio-install.yaml:19: spec.meshConfig.outboundTrafficPolicy: kept, and not enforced yet",
		"01-istio-install.yaml:36: spec.components.ingressGateways[0]: istio-ingressgateway: Fairlead has no ingress",
		"01-istio-install.yaml:59: spec.components.egressGateways[0]: istio-egressgateway: Fairlead has no ingress",
	} {
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("nothing begins with %q in:\n%s", want, strings.Join(said, "\n"))
		}
	}
}

// A mistyped profile ends the installation before it began, with the line, the list and
// the nearest name.
func TestMistypedProfile(t *testing.T) {
	f := seedFile(t, "01-istio-install.yaml")
	f.Data = []byte(strings.Replace(string(f.Data), "profile: production", "profile: prodution", 1))
	_, err := Read([]source.File{f}, nil)
	want := `01-istio-install.yaml:9: spec.profile: no profile "prodution": there are default, demo, minimal, production, remote; did you mean "production"?`
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}

// The tutorial's tuning of the control plane has one field that there never was.
func TestTutorialTuning(t *testing.T) {
	_, err := Read([]source.File{seedFile(t, "16-istiod-optimization.yaml")}, nil)
	want := "16-istiod-optimization.yaml:28: spec.values.pilot.enableEDSDebounce: no such field: "
	if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got  %v\nwant %s...", err, want)
	}
	if _, err := Read([]source.File{seedFile(t, "13-tracing-config.yaml")}, nil); err != nil {
		t.Errorf("the tracing settings: %v", err)
	}
}

// What is wrong is refused at its line.
func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a field of the spec", head + "  profle: demo\n", `mesh.yaml:4: spec.profle: no such field; did you mean "profile"?`},
		{"a component", head + "  components:\n    pilott:\n      enabled: true\n", `mesh.yaml:5: spec.components.pilott: no such field; did you mean "pilot"?`},
		{"a field of Kubernetes", head + "  components:\n    pilot:\n      k8s:\n        hpaSpecs: {}\n", `mesh.yaml:7: spec.components.pilot.k8s.hpaSpecs: no such field; did you mean "hpaSpec"?`},
		{"a value of the wrong type", head + "  components:\n    pilot:\n      k8s:\n        hpaSpec:\n          minReplicas: two\n", `mesh.yaml:8: spec.components.pilot.k8s.hpaSpec.minReplicas: integer is wanted, and this is string`},
		{"a mesh configuration", head + "  meshConfig:\n    accessLogFiel: /dev/stdout\n", `mesh.yaml:5: spec.meshConfig.accessLogFiel: unknown field "accessLogFiel"; did you mean "accessLogFile"?`},
		{"a mode", head + "  meshConfig:\n    outboundTrafficPolicy:\n      mode: REGISTRY\n", `mesh.yaml:6: spec.meshConfig.outboundTrafficPolicy.mode: "REGISTRY" is not one of`},
		{"a namespace", "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nmetadata:\n  namespace: mesh\n", `mesh.yaml:4: metadata.namespace: "mesh": the mesh is installed in the namespace istio-system alone`},
		{"a revision", head + "  revision: canary\n", `mesh.yaml:4: spec.revision: "canary": there is one revision, default; an upgrade replaces the installation in place`},
		{"another kind", "apiVersion: v1\nkind: ConfigMap\n", `mesh.yaml:1: v1 ConfigMap is nothing that an installation reads`},
		{"no YAML", "spec: [\n", `mesh.yaml:1: not YAML: `},
		{"a key twice", head + "  hub: a\n  hub: b\n", `mesh.yaml:5: `},
		{"a value of the chart", "controlPlane:\n  logLevel: loud\n", `mesh.yaml:2: controlPlane.logLevel: "loud" is not one of debug, info, warn, error`},
		{"a level", head + "  values:\n    global:\n      logging:\n        level: default:loud\n", `mesh.yaml:7: spec.values.global.logging.level: "loud" is no level`},
	} {
		r, err := Read(file(c.text), nil)
		if err == nil {
			err = render(r)
		}
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", c.name, err, c.want)
		}
	}
	_, err := Read(file(head+"  a: 1\n  b: 2\n"), []string{"c=3"})
	if all := Errors(nil); !errors.As(err, &all) || len(all) != 3 {
		t.Errorf("all that is wrong is told at once, not %v", err)
	}
}

// What is given by --set is read as in a file, and goes before it.
func TestSets(t *testing.T) {
	r, err := Read(file(head+"  profile: demo\n  tag: \"1.2\"\n  values:\n    global:\n      hub: a\n"),
		[]string{"profile=minimal", "tag=1.20", "controlPlane.replicas=3", "values.global.logging.level=default:warning", "meshConfig.accessLogFile=/dev/stdout",
			"values.pilot.env.GOGC=50", `values.nodeAgent.podAnnotations.example\.com/a=b`})
	if err != nil {
		t.Fatal(err)
	}
	if err := render(r); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]any{
		"tag": "1.20", "hub": "a", "controlPlane.replicas": 3, "controlPlane.logLevel": "warn", "nodeAgent.logLevel": "warn",
		"meshConfig.accessLogFile": "/dev/stdout", "controlPlane.env.GOGC": "50",
	} {
		if got := value(r, path); got != want {
			t.Errorf("%s is %v (%T), want %v", path, got, got, want)
		}
	}
	if r.Profile != "minimal" {
		t.Errorf("profile %q", r.Profile)
	}
	for set, want := range map[string]string{
		"profile=prod":            `--set profile: no profile "prod": `,
		"profile":                 `--set profile: want path=value`,
		"components.pilott.a=b":   `--set components.pilott: no such field; did you mean "pilot"?`,
		"controlPlane.replicas=x": `--set controlPlane.replicas: integer is wanted, and this is string`,
	} {
		r, err := Read(nil, []string{set})
		if err == nil {
			err = render(r)
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("--set %s:\ngot  %v\nwant %s", set, err, want)
		}
	}
}

// What is asked for later goes before, and the rest stays.
func TestOver(t *testing.T) {
	earlier, err := Read(nil, []string{"profile=production", "tag=v1", "controlPlane.replicas=3", "controlPlane.logLevel=error"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Read(nil, []string{"controlPlane.logLevel=debug"})
	if err != nil {
		t.Fatal(err)
	}
	r.Over(earlier)
	tag, _ := r.Tag()
	if r.Profile != "production" || tag != "v1" || value(r, "controlPlane.replicas") != 3 || value(r, "controlPlane.logLevel") != "debug" {
		t.Errorf("profile %s, values %v", r.Profile, r.Values)
	}
}

// Every value of the chart that a table names is one that the chart takes.
func TestTablesLeadToValues(t *testing.T) {
	var walk func(at string, r rule)
	walk = func(at string, r rule) {
		if r.to != "" && !strings.HasPrefix(r.to, "meshConfig") {
			keys := strings.Split(r.to, ".")
			if !slices.Contains(chart.Keys(keys[:len(keys)-1]), keys[len(keys)-1]) {
				t.Errorf("%s leads to %s, which is no value of the chart", at, r.to)
			}
		}
		for name, f := range r.fields {
			walk(at+"."+name, f)
		}
		if r.items != nil {
			walk(at+"[]", *r.items)
		}
	}
	walk("spec", rule{fields: spec()})
}

func FuzzRead(f *testing.F) {
	f.Add(head+"  profile: demo\n", "a.b=c")
	f.Add("controlPlane: {replicas: 2}\n", "meshConfig=")
	f.Fuzz(func(t *testing.T, text, set string) {
		r, err := Read(file(text), []string{set})
		if err == nil {
			_ = render(r)
		}
	})
}
