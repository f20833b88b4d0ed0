package podwatch

import "testing"

func TestWhoIsCaptured(t *testing.T) {
	label := func(v string) map[string]string { return map[string]string{ModeLabel: v} }
	injected := map[string]string{"istio-injection": "enabled"}
	rule := Rule{Excluded: []string{"kube-system"}}
	for name, c := range map[string]struct {
		facts     Facts
		namespace map[string]string
		injection bool
		want      bool
	}{
		"no label":                         {},
		"namespace":                        {namespace: label("ambient"), want: true},
		"pod":                              {facts: Facts{Labels: label("ambient")}, want: true},
		"pod opts out":                     {facts: Facts{Labels: label("none")}, namespace: label("ambient")},
		"pod opts in, namespace out":       {facts: Facts{Labels: label("ambient")}, namespace: label("none"), want: true},
		"another mode of the pod":          {facts: Facts{Labels: label("sidecar")}, namespace: label("ambient"), want: true},
		"another mode of the namespace":    {namespace: label("sidecar")},
		"host network":                     {facts: Facts{HostNetwork: true, Labels: label("ambient")}, namespace: label("ambient")},
		"excluded namespace":               {facts: Facts{Namespace: "kube-system", Labels: label("ambient")}, namespace: label("ambient")},
		"sidecar by annotation":            {facts: Facts{Annotations: map[string]string{"sidecar.istio.io/status": "{}"}}, namespace: label("ambient")},
		"sidecar by container":             {facts: Facts{Containers: []string{"app", "istio-proxy"}}, namespace: label("ambient")},
		"finished":                         {facts: Facts{Finished: true}, namespace: label("ambient")},
		"injection label alone":            {namespace: injected},
		"injection label taken for one":    {namespace: injected, injection: true, want: true},
		"and the pod without injection":    {facts: Facts{Labels: map[string]string{"sidecar.istio.io/inject": "false"}}, namespace: injected, injection: true},
		"and the pod alone with injection": {facts: Facts{Labels: map[string]string{"sidecar.istio.io/inject": "true"}}, injection: true, want: true},
		"and the pod opted out":            {facts: Facts{Labels: label("none")}, namespace: injected, injection: true},
	} {
		r := rule
		r.Injection = c.injection
		if got, why := r.Captures(c.facts, c.namespace); got != c.want {
			t.Errorf("%s: %v (%s)", name, got, why)
		}
	}
}
