package analyze

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
)

const seed = "../../../../shared/seed/manifests"

func read(t *testing.T, pattern string) (out []source.File) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, source.File{Name: filepath.Base(name), Data: text})
	}
	return out
}

// cluster is a file's objects as a cluster has them: one text each.
func cluster(t *testing.T, name string) (out []source.File) {
	t.Helper()
	for _, f := range read(t, name) {
		for text := range strings.SplitSeq(string(f.Data), "\n---\n") {
			out = append(out, source.File{Data: []byte(text)})
		}
	}
	return out
}

// TestSeed holds that each line of the tutorial's README that can be known without
// traffic is reported, with its file and line: I1 and I5 by the installer's reader.
func TestSeed(t *testing.T) {
	files := read(t, seed+"/*.yaml")
	if len(files) == 0 {
		t.Skip("the seed is not here")
	}
	installer := func(f source.File) []source.Problem {
		return []source.Problem{{Position: source.Position{File: f.Name, Line: 9}, Severity: source.Error, Field: "spec.profile", Message: "as the installer says"}}
	}
	found, err := Run(Input{Files: files, Stored: cluster(t, "testdata/bookinfo.yaml"), Whole: true, Installer: installer})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ id, place, code, text string }{
		{"I1", "01-istio-install.yaml:9", "IST0106", "as the installer says"},
		{"I2", "09-rate-limit.yaml:38", "IST0133", `did you mean "OVERWRITE_IF_EXISTS_OR_ADD"?`},
		{"I3", "14-telemetry.yaml:28", "IST0106", `did you mean "tagOverrides"?`},
		{"I3", "14-telemetry.yaml:31", "IST0106", `labels are set under "tagOverrides"`},
		{"I3", "14-telemetry.yaml:33", "IST0106", "match: {metric: REQUEST_COUNT}"},
		{"I4", "15-sidecar-resources.yaml:28", "IST0106", `Write "default/reviews.default.svc.cluster.local"`},
		{"I4", "15-sidecar-resources.yaml:29", "IST0106", `Write "default/details.default.svc.cluster.local"`},
		{"I4", "15-sidecar-resources.yaml:30", "IST0106", `Write "default/ratings.default.svc.cluster.local"`},
		{"I5", "16-istiod-optimization.yaml:9", "IST0106", "as the installer says"},
		{"F1", "06-canary-weight-based.yaml:15", "IST0101", `"reviews+v1"; add to a DestinationRule for host reviews.default.svc.cluster.local: subsets: [{name: v1, labels: {version: v1}}]`},
		{"F1", "06-canary-weight-based.yaml:19", "IST0101", `"reviews+v2"`},
		{"F1", "07-canary-content-based.yaml:19", "IST0101", `"reviews+v2"`},
		{"F1", "10-retry-timeout.yaml:14", "IST0101", `"reviews+v1"`},
		{"F2", "07-canary-content-based.yaml:3", "FL0102", "06-canary-weight-based.yaml:4"},
		{"F2", "10-retry-timeout.yaml:10", "IST0109", "default/reviews-canary,default/reviews-resilience"},
		{"F3", "04-destination-rule.yaml:34", "IST0173", "(x-user-type premium) weight 100, VirtualService default/productpage spec.http[1] weight 10"},
		{"F4", "12-authorization-policy.yaml:18", "FL0106", "no pod runs as default/bookinfo-productpage; productpage runs as default/default"},
		{"F6", "12-authorization-policy.yaml:27", "FL0118", "who can call can send it"},
		{"F7", "07-canary-content-based.yaml:16", "FL0107", `write ^(.*?;\s*)?(test-user=true)(;.*)?$`},
		{"F9", "04-destination-rule.yaml:32", "FL0108", "tcp.maxConnections"},
		{"F11", "09-rate-limit.yaml:15", "FL0109", "1\\.21"},
		{"F11", "09-rate-limit.yaml:17", "IST0151", "INSERT_FIRST"},
		{"F12", "05-gateway.yaml:28", "IST0101", "secret istio-system/bookinfo-tls-secret"},
		{"F12", "05-gateway.yaml:10", "IST0101", `"istio=ingressgateway"`},
		{"F13", "03-virtual-service.yaml:12", "IST0140", "istio.io/ingress-use-waypoint=true"},
		{"F14", "10-retry-timeout.yaml:20", "FL0110", "4 tries of 3s take 12s, and the timeout is 10s"},
		{"F15", "11-mtls.yaml:23", "FL0111", "app=reviews"},
		{"F16", "12-authorization-policy.yaml:48", "FL0112", "tokens are optional"},
		{"F17", "02-bookinfo-deployment.yaml:24", "IST0135", "sidecar.istio.io/inject"},
		{"F17", "02-bookinfo-deployment.yaml:26", "IST0135", "node agent"},
		{"F17", "02-bookinfo-deployment.yaml:27", "IST0135", "waypoint"},
		{"F18", "01-istio-install.yaml:17", "FL0117", "14-telemetry.yaml:12 sets 5 %"},
		{"F19", "14-telemetry.yaml:11", "FL0113", "provider jaeger is not defined; providers: envoy, prometheus, stackdriver"},
		{"F20", "16-istiod-optimization.yaml:16", "FL0105", "namespace default is in the mesh but not discovered"},
		{"F21", "16-istiod-optimization.yaml:12", "FL0116", "matches nothing"},
		{"F21", "16-istiod-optimization.yaml:13", "FL0116", "matches nothing"},
		{"F24", "04-destination-rule.yaml:25", "FL0114", "at most 50 %"},
		{"F24", "08-circuit-breaker.yaml:31", "FL0114", "at most 60 %"},
		{"F25", "15-sidecar-resources.yaml:23", "FL0115", "REGISTRY_ONLY"},
		{"C7", "", "FL0104", "kubectl label namespace default istio.io/dataplane-mode=ambient"},
	} {
		if !slices.ContainsFunc(found, func(m Message) bool {
			return (want.place == "" || m.Position.String() == want.place) && string(m.Code) == want.code && strings.Contains(m.Text, want.text)
		}) {
			t.Errorf("%s is not reported: %s [%s] %s", want.id, want.place, want.code, want.text)
		}
	}
	if t.Failed() {
		for _, m := range found {
			t.Log(m)
		}
	}
}

// notYet are findings of a set without mistakes: what is not served yet. Each goes
// with what it waits for.
var notYet = []string{
	"does not serve RequestAuthentication", "does not serve Sidecar", "does not serve Gateway", "does not serve EnvoyFilter",
	"no spans are sent yet", "metrics cannot be changed yet",
}

func TestNothingIsSaidOfTheCorrectedSet(t *testing.T) {
	in := Input{Files: read(t, "testdata/corrected/*.yaml"), Stored: append(cluster(t, "testdata/bookinfo.yaml"), secret(t)), Whole: true}
	found, err := Run(in)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range found {
		if !slices.ContainsFunc(notYet, func(text string) bool { return strings.Contains(m.Text, text) }) {
			t.Error(m)
		}
	}
}

// secret is the gateway's certificate.
func secret(t *testing.T) source.File {
	t.Helper()
	made := identitytest.SelfSigned("bookinfo.example.com")
	cert := made.Certificate[0]
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := func(kind string, raw []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
	}
	return source.File{Data: fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bookinfo-tls-secret", "namespace": "istio-system"}, "data": {"tls.crt": %q, "tls.key": %q}}`,
		text("CERTIFICATE", cert), text("PRIVATE KEY", der))}
}

// TestFilesAloneAreNotTheWorld holds that what may well be in the cluster is not said
// to be missing when files are looked at alone.
func TestFilesAloneAreNotTheWorld(t *testing.T) {
	found, err := Run(Input{Files: []source.File{{Name: "a.yaml", Data: []byte(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec: {hosts: [a], http: [{route: [{destination: {host: somewhere}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: d}
spec: {host: elsewhere, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p}
spec: {selector: {matchLabels: {app: x}}, rules: [{from: [{source: {principals: [cluster.local/ns/a/sa/b], namespaces: [a]}}]}]}
`)}}})
	if err != nil || len(found) != 0 {
		t.Errorf("%v %v", found, err)
	}
}
