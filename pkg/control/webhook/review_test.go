package webhook

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// request asks about an object in YAML, which replaces another, or none.
func request(t *testing.T, object, before string) *admissionv1.AdmissionRequest {
	t.Helper()
	raw := func(text string) runtime.RawExtension {
		if text == "" {
			return runtime.RawExtension{}
		}
		j, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return runtime.RawExtension{Raw: j}
	}
	r := &admissionv1.AdmissionRequest{UID: types.UID("u"), Operation: admissionv1.Create, Object: raw(object), OldObject: raw(before)}
	if before != "" {
		r.Operation = admissionv1.Update
	}
	var head metav1.PartialObjectMetadata
	if err := json.Unmarshal(r.Object.Raw, &head); err != nil {
		t.Fatal(err)
	}
	gvk := head.GroupVersionKind()
	r.Kind = metav1.GroupVersionKind{Group: gvk.Group, Version: gvk.Version, Kind: gvk.Kind}
	r.Namespace, r.Name = head.Namespace, head.Name
	return r
}

const (
	right = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}}`
	wrong = `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: {hosts: [web], http: [{match: [{uri: {regex: "("}}], route: [{destination: {host: web}}]}]}}`
)

func TestReview(t *testing.T) {
	going := strings.Replace(wrong, "namespace: shop", "namespace: shop, deletionTimestamp: 2026-01-01T00:00:00Z", 1)
	for name, c := range map[string]struct {
		object, before string
		// message is a part of what an object is refused with, "" for one that is allowed;
		// warning is a part of what is said beside.
		message, warning string
	}{
		"right":                           {object: right},
		"wrong":                           {object: wrong, message: `VirtualService shop/v is invalid: spec.http[0].match[0].uri`},
		"made wrong":                      {object: wrong, before: right, message: "spec.http[0].match[0].uri"},
		"mended":                          {object: right, before: wrong},
		"as wrong as before":              {object: strings.Replace(wrong, "name: v,", "name: v, labels: {a: b},", 1), before: wrong},
		"wrong and going":                 {object: going, before: right},
		"an older version of the kind":    {object: strings.Replace(wrong, "istio.io/v1,", "istio.io/v1beta1,", 1), message: "spec.http[0].match[0].uri"},
		"a field that the CRD is new for": {object: strings.Replace(right, "hosts: [web],", "hosts: [web], novelty: 1,", 1), warning: `unknown field "novelty"`},
		"security that is not served": {
			object:  `{apiVersion: security.istio.io/v1, kind: RequestAuthentication, metadata: {name: r, namespace: shop}, spec: {jwtRules: [{issuer: i, jwksUri: "https://i/jwks"}]}}`,
			message: "does not serve RequestAuthentication",
		},
		"another kind that is not served": {
			object:  `{apiVersion: networking.istio.io/v1, kind: Sidecar, metadata: {name: s, namespace: shop}, spec: {egress: [{hosts: ["./*"]}]}}`,
			warning: "does not serve Sidecar: it has no effect",
		},
		"the Gateway API's": {
			object:  `{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: h, namespace: shop}, spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{matches: [{path: {type: RegularExpression, value: "("}}]}]}}`,
			warning: "spec.rules[0].matches[0].path",
		},
		"none of ours": {object: `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: shop}}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := Review(request(t, c.object, c.before))
			if got.UID != "u" || got.Allowed != (c.message == "") {
				t.Fatalf("allowed %v, said %+v, warnings %q", got.Allowed, got.Result, got.Warnings)
			}
			if !got.Allowed && (!strings.Contains(got.Result.Message, c.message) || got.Result.Reason != metav1.StatusReasonBadRequest || len(got.Result.Details.Causes) == 0) {
				t.Errorf("refused with %+v, want %q", got.Result, c.message)
			}
			if all := strings.Join(got.Warnings, "\n"); (c.warning == "") != (all == "") || !strings.Contains(all, c.warning) {
				t.Errorf("warnings %q, want %q", all, c.warning)
			}
		})
	}
}

func TestNoReviewOfDeletion(t *testing.T) {
	r := request(t, wrong, "")
	r.Operation, r.OldObject, r.Object = admissionv1.Delete, r.Object, runtime.RawExtension{}
	if got := Review(r); !got.Allowed {
		t.Errorf("a deletion is refused: %+v", got.Result)
	}
}

// Whatever is asked about, what is said has bounds.
func TestAnswersAreBounded(t *testing.T) {
	var rules []string
	for i := range 500 {
		rules = append(rules, fmt.Sprintf(`{match: [{uri: {regex: "(%d"}}], route: [{destination: {host: web}}]}`, i))
	}
	got := Review(request(t, `{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: v, namespace: shop}, spec: {hosts: [web], http: [`+strings.Join(rules, ",")+`]}}`, ""))
	if got.Allowed || len(got.Result.Details.Causes) > maxCauses || len(got.Result.Message) > 8<<10 || !strings.HasSuffix(got.Result.Message, "and more") {
		t.Errorf("%d causes in %d bytes", len(got.Result.Details.Causes), len(got.Result.Message))
	}
	if text := cut(strings.Repeat("ä", maxWarning)); len(text) > maxWarning {
		t.Errorf("a warning of %d bytes", len(text))
	}
}

// The object that proves a webhook is refused by this one.
func TestProofIsRefused(t *testing.T) {
	text, err := json.Marshal(proof("istio-system"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Review(request(t, string(text), "")); got.Allowed {
		t.Error("it is allowed")
	}
}

// What Istio's webhook refuses and definitions let pass, this one refuses too.
func TestRefusesWhatIstioRefuses(t *testing.T) {
	dir := filepath.Join("..", "..", "..", "..", "shared", "oracle", "validate")
	files, err := filepath.Glob(filepath.Join(dir, "*.webhook.txt"))
	if err != nil || len(files) == 0 {
		t.Skip("the recorded answers are not here")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".webhook.txt")
		answer, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		object, err := os.ReadFile(filepath.Join(dir, name+".yaml"))
		if err != nil {
			t.Fatal(err)
		}
		stored, err := os.ReadFile(filepath.Join(dir, name+".apiserver.txt"))
		if err != nil {
			t.Fatal(err)
		}
		refused := strings.Contains(string(answer), "allowed: false") && strings.Contains(string(stored), "accepted")
		got := Review(request(t, string(object), ""))
		if refused && got.Allowed {
			t.Errorf("%s is allowed; Istio says %s", name, answer)
		}
		if !got.Allowed && strings.Contains(string(answer), "allowed: true") && strings.Contains(string(stored), "accepted") {
			t.Errorf("%s is refused: %s", name, got.Result.Message)
		}
	}
}
