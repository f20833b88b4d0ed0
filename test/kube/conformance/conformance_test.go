// Package conformance runs the Gateway API's own suite against the tree's Fairlead on
// real nodes, profiles MESH-HTTP and MESH-GRPC, and compares its results with the report in
// docs/conformance. `make test-conformance` runs it; elsewhere it is skipped.
package conformance

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

const root = "../../.."

// features are all extended features of the mesh profiles, and those of HTTPRoute
// that a test of a mesh asks for.
var features = []string{
	"Mesh", "HTTPRoute", "GRPCRoute",
	"MeshClusterIPMatching", "MeshConsumerRoute", "MeshHTTPRouteRewritePath", "MeshHTTPRouteSchemeRedirect",
	"MeshHTTPRouteRedirectPort", "MeshHTTPRouteRedirectPath", "MeshHTTPRouteBackendRequestHeaderModification",
	"MeshHTTPRouteQueryParamMatching", "MeshHTTPRouteNamedRouteRule",
	"HTTPRouteResponseHeaderModification", "HTTPRouteParentRefPort",
	"HTTPRoute303RedirectStatusCode", "HTTPRoute307RedirectStatusCode", "HTTPRoute308RedirectStatusCode",
}

// labels put the suite's namespaces into the mesh, behind the waypoint of each.
const labels = "istio.io/dataplane-mode=ambient,istio.io/use-waypoint=waypoint"

// image is the reference of the suite's own manifests.
const image = "registry.k8s.io/gateway-api/echo-advanced:v1.5.1"

// namespaces are the suite's: it makes them where they are missing, but a waypoint
// has to be there before.
var namespaces = []string{"gateway-conformance-mesh", "gateway-conformance-mesh-consumer"}

func TestPageHasTheCommandLine(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "conformance", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{
		"-supported-features " + strings.Join(features, ",") + " ", "-namespace-labels " + labels + " ",
		strings.ReplaceAll(labels, ",", " "), strings.Join(namespaces, " "),
	} {
		if !strings.Contains(string(page), flag) {
			t.Errorf("docs/conformance/README.md does not say %q", flag)
		}
	}
}

func TestMeshProfiles(t *testing.T) {
	if os.Getenv(cluster.Required) == "" {
		t.Skip("no cluster was asked for: `make test-conformance` runs this")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	dir := t.TempDir()
	built, err := mesh.Build(ctx, root, dir)
	if err != nil {
		t.Fatal(err)
	}
	suite, err := cluster.Part("conformance.test")
	if err != nil {
		t.Fatal(err)
	}
	echo, err := echoImage(dir)
	if err != nil {
		t.Fatal(err)
	}
	built.Images = append(built.Images, echo)
	m, err := mesh.Start(ctx, "gwconf", built)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, ns := range namespaces {
		m.Do(t, "create", "namespace", ns)
		m.Do(t, append([]string{"label", "namespace", ns}, strings.Split(labels, ",")...)...)
		if _, err := m.Fairlead(ctx, "waypoint", "apply", "-n", ns, "--wait"); err != nil {
			t.Fatal(err)
		}
	}
	report := filepath.Join(dir, "report.yaml")
	version := describe(ctx)
	run := exec.CommandContext(ctx, suite, "-test.v",
		"-conformance-profiles", "MESH-HTTP,MESH-GRPC",
		"-supported-features", strings.Join(features, ","),
		"-namespace-labels", labels,
		"-mesh-name", "fairlead",
		"-organization", "fairlead-mesh", "-project", "fairlead", "-url", "https://github.com/fairlead-mesh/fairlead",
		"-contact", "https://github.com/fairlead-mesh/fairlead/issues", "-version", version,
		"-report-output", report,
	)
	run.Dir, run.Env = dir, append(os.Environ(), "KUBECONFIG="+m.Kubeconfig)
	out, err := run.CombinedOutput()
	if err != nil {
		t.Errorf("the suite: %v", err)
	}
	show(t, string(out))
	text, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	check(t, text)
	if t.Failed() {
		return
	}
	if to := os.Getenv(write); to != "" {
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Error(err)
		}
		return
	}
	committed, err := os.ReadFile(filepath.Join(root, "docs", "conformance", "v1.6.3-standard-default-report.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if was, is := results(t, committed), results(t, text); was != is {
		t.Errorf("the results are not those of the report in docs/conformance: `make conformance-report` writes it anew.\nThere:\n%s\nNow:\n%s", was, is)
	}
}

// write is the environment variable that names a file for the report; without it, the results
// are compared with the report in docs/conformance.
const write = "FAIRLEAD_CONFORMANCE_REPORT"

// results is a report without when and of which commit it is.
func results(t *testing.T, text []byte) string {
	t.Helper()
	var r map[string]any
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	delete(r, "date")
	if i, ok := r["implementation"].(map[string]any); ok {
		delete(i, "version")
	}
	out, err := yaml.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// show prints the verdict of each test that was not left out with its profile, and
// everything where one failed.
func show(t *testing.T, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "---" && strings.HasPrefix(f[2], "TestConformance/Mesh") {
			if strings.Count(f[2], "/") == 1 {
				t.Log(strings.TrimSpace(line))
			}
			if f[1] == "SKIP:" && strings.Count(f[2], "/") == 1 {
				t.Errorf("%s was skipped", f[2])
			}
		}
	}
	if strings.Contains(out, "--- FAIL") {
		t.Log(out)
	}
}

// check wants both profiles to succeed with nothing failed, skipped or unsupported.
func check(t *testing.T, text []byte) {
	t.Helper()
	type part struct {
		Result              string
		Statistics          struct{ Failed, Passed, Skipped int }
		SkippedTests        []string
		UnsupportedFeatures []string
	}
	var r struct {
		Profiles []struct {
			Name           string
			Core, Extended *part
		}
	}
	if err := yaml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Profiles) != 2 {
		t.Errorf("the report has %d profiles, not MESH-HTTP and MESH-GRPC", len(r.Profiles))
	}
	for _, p := range r.Profiles {
		for what, part := range map[string]*part{"core": p.Core, "extended": p.Extended} {
			if part == nil {
				if what == "core" || p.Name == "MESH-HTTP" {
					t.Errorf("%s has no %s result", p.Name, what)
				}
				continue
			}
			if part.Result != "success" || part.Statistics.Failed+part.Statistics.Skipped > 0 || part.Statistics.Passed == 0 || len(part.UnsupportedFeatures) > 0 {
				t.Errorf("%s, %s: %+v", p.Name, what, *part)
			}
		}
	}
	if t.Failed() {
		t.Logf("the report:\n%s", text)
	}
}

// describe is the version that the report names.
func describe(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
