package analyze

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// authorization looks at who the AuthorizationPolicies name, and whom they protect.
func (w *world) authorization() {
	for _, d := range w.of(security, "AuthorizationPolicy") {
		w.selects(d, "spec.selector", texts(document.At(d.value, "spec", "selector", "matchLabels")), Warning, NoMatchingWorkloads)
		for i, rule := range document.List(d.value, "spec", "rules") {
			for j, from := range document.List(rule, "from") {
				field := fmt.Sprintf("spec.rules[%d].from[%d].source", i, j)
				for k, p := range document.List(from, "source", "principals") {
					w.principal(d, fmt.Sprintf("%s.principals[%d]", field, k), document.Text(p))
				}
				for _, key := range []string{"namespaces", "notNamespaces"} {
					for k, n := range document.List(from, "source", key) {
						w.namespace(d, fmt.Sprintf("%s.%s[%d]", field, key, k), document.Text(n))
					}
				}
			}
			for j, when := range document.List(rule, "when") {
				w.headerCredential(d, fmt.Sprintf("spec.rules[%d].when[%d]", i, j), when)
			}
		}
	}
}

// selects says that an object's selector selects nothing, where everything is known.
func (w *world) selects(d *manifest, field string, labels map[string]string, level Level, code Code) {
	if len(labels) == 0 || !w.Whole {
		return
	}
	namespace := d.Ref.Namespace
	if namespace == w.objects.Mesh.GetRootNamespace() {
		namespace = ""
	}
	if len(w.selected(namespace, labels)) > 0 {
		return
	}
	if code == NoMatchingWorkloads {
		w.reportAt(level, code, d, field, "No matching workloads for this resource with the following labels: %s", pairs(labels))
		return
	}
	w.reportAt(level, code, d, field, "Referenced selector not found: %q", pairs(labels))
}

// principal finds an identity that nothing runs as.
func (w *world) principal(d *manifest, field, text string) {
	_, rest, ok := strings.Cut(text, "/ns/")
	namespace, name, ok2 := strings.Cut(rest, "/sa/")
	if !ok || !ok2 || strings.Contains(text, "*") {
		return
	}
	there := w.selected(namespace, nil)
	if len(there) == 0 && !w.Whole {
		return // its workloads are somewhere else
	}
	var runs []string
	for _, x := range there {
		if x.account == name {
			return
		}
		// A workload that the account is named after is the one that was meant.
		if strings.Contains(name, x.name) || x.labels["app"] != "" && strings.Contains(name, x.labels["app"]) {
			runs = append(runs, fmt.Sprintf("%s runs as %s/%s", cmp.Or(x.labels["app"], x.name), x.namespace, x.account))
		}
	}
	if len(runs) == 0 && !w.Whole {
		return
	}
	slices.Sort(runs)
	w.reportAt(Warning, PrincipalRunsNowhere, d, field, "%s", strings.Join(append([]string{fmt.Sprintf("no pod runs as %s/%s", namespace, name)}, slices.Compact(runs)...), "; "))
}

func (w *world) namespace(d *manifest, field, name string) {
	if strings.Contains(name, "*") || !w.Whole || w.byRef[source.Ref{Kind: "Namespace", Name: name}] != nil {
		return
	}
	w.reportAt(Error, ReferencedResourceNotFound, d, field, "Referenced namespace not found: %q", name)
}

// headerCredential finds a header that lets callers in by how its value begins or ends:
// anyone can send it.
func (w *world) headerCredential(d *manifest, field string, when any) {
	key := document.Text(when, "key")
	action := document.Text(d.value, "spec", "action")
	if !strings.HasPrefix(key, "request.headers[") || action != "" && action != "ALLOW" {
		return
	}
	for i, v := range document.List(when, "values") {
		if value := document.Text(v); len(value) > 1 && strings.Contains(value, "*") {
			w.reportAt(Warning, HeaderAsCredential, d, fmt.Sprintf("%s.values[%d]", field, i),
				"callers are let in by %s matching %q: who can call can send it; use source.principals, or claims of a JWT (request.auth.claims)", key, value)
		}
	}
}

// authentication looks at PeerAuthentications and RequestAuthentications.
func (w *world) authentication() {
	for _, d := range w.of(security, "PeerAuthentication") {
		labels := texts(document.At(d.value, "spec", "selector", "matchLabels"))
		w.selects(d, "spec.selector", labels, Warning, NoMatchingWorkloads)
		if d.Ref.Name == "default" && len(labels) > 0 {
			w.reportAt(Info, NamespaceWideName, d, "spec.selector",
				"is named as a namespace's own, and its selector makes it one of workloads: it holds for those with %s alone", pairs(labels))
		}
	}
	for _, d := range w.of(security, "RequestAuthentication") {
		labels := texts(document.At(d.value, "spec", "selector", "matchLabels"))
		w.selects(d, "spec.selector", labels, Warning, NoMatchingWorkloads)
		if !w.tokensRequired(d, labels) {
			w.reportAt(Warning, TokensOptional, d, "", "no AuthorizationPolicy requires requestPrincipals: tokens are optional, and a request without one passes")
		}
	}
}

// tokensRequired tells whether a policy for the same workloads asks for a token.
func (w *world) tokensRequired(r *manifest, labels map[string]string) bool {
	for _, d := range w.of(security, "AuthorizationPolicy") {
		root := d.Ref.Namespace == w.objects.Mesh.GetRootNamespace()
		selector := texts(document.At(d.value, "spec", "selector", "matchLabels"))
		if d.Ref.Namespace != r.Ref.Namespace && !root || !matches(selector, labels) && !matches(labels, selector) {
			continue
		}
		for _, rule := range document.List(d.value, "spec", "rules") {
			for _, from := range document.List(rule, "from") {
				if len(document.List(from, "source", "requestPrincipals"))+len(document.List(from, "source", "notRequestPrincipals")) > 0 {
					return true
				}
			}
			for _, when := range document.List(rule, "when") {
				if strings.HasPrefix(document.Text(when, "key"), "request.auth.") {
					return true
				}
			}
		}
	}
	return false
}
