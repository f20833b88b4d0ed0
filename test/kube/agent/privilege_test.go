package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// Each capability that the chart gives is needed: without it something is refused to the
// agent, which says for want of what, and a pod is not captured. With all of them, and no
// privilege else, it is.
func privileges(w *world) {
	var all []string
	listed := w.kubectl("-n", "istio-system", "get", "daemonset", "ztunnel", "-o", "jsonpath={.spec.template.spec.containers[0].securityContext}")
	var given struct {
		Privileged   bool
		Capabilities struct{ Add, Drop []string }
	}
	if err := json.Unmarshal([]byte(listed), &given); err != nil {
		w.Fatal(err)
	}
	all = given.Capabilities.Add
	if given.Privileged || !slices.Equal(given.Capabilities.Drop, []string{"ALL"}) || len(all) == 0 {
		w.Fatalf("security context %s", listed)
	}
	set := func(capabilities []string) {
		w.Helper()
		b, err := json.Marshal([]any{
			map[string]any{"op": "replace", "path": "/spec/template/spec/containers/0/securityContext/capabilities/add", "value": capabilities},
		})
		if err != nil {
			w.Fatal(err)
		}
		w.kubectl("-n", "istio-system", "patch", "daemonset", "ztunnel", "--type=json", "-p", string(b))
	}
	for _, missing := range all {
		w.Run("without "+missing, func(t *testing.T) {
			w := &world{T: t, c: w.c, fairlead: w.fairlead}
			w.gone()
			w.kubectl("-n", "plain", "delete", "pod", "subject", "--ignore-not-found")
			w.apply(talker("plain/subject", "n1"))
			w.until("it runs", func() bool { return w.of("plain/subject", ".status.phase") == "Running" })
			set(slices.DeleteFunc(slices.Clone(all), func(c string) bool { return c == missing }))
			w.back()
			w.kubectl("-n", "plain", "label", "pod", "subject", label)
			w.until("the agent names what it lacks", func() bool {
				out, _ := w.c.Kubectl(w.Context(), "-n", "istio-system", "logs", "-l", "app=ztunnel", "--tail=200")
				previous, _ := w.c.Kubectl(w.Context(), "-n", "istio-system", "logs", "-l", "app=ztunnel", "--tail=200", "--previous")
				return strings.Contains(out+previous, "the agent lacks CAP_"+missing+";")
			})
			if got := w.of("plain/subject", annotation); got == "enabled" {
				w.Error("a pod is captured without it: it is not needed")
			}
		})
	}
	w.gone()
	set(all)
	w.back()
	w.until("with all of them a pod is captured", func() bool { return w.of("plain/subject", annotation) == "enabled" })
}
