package source

import (
	"regexp"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refuse notes a wrong security object with what it selects, as far as that can
// be read: labels, else its namespace.
func (p *parsed) refuse(pos Position, node *yaml.Node, ref Ref, reason string) {
	if ref.Namespace == "" {
		ref.Namespace = metav1.NamespaceDefault
	}
	spec := field(node, "spec")
	if field(spec, "targetRefs") != nil || field(spec, "targetRef") != nil {
		return // meant for a waypoint: no node enforces it, so none can deny for it
	}
	r := Refused{Ref: ref, Position: pos, Reason: reason}
	if labels := field(field(spec, "selector"), "matchLabels"); labels != nil && labels.Kind == yaml.MappingNode {
		r.Selector = map[string]string{}
		for i := 0; i+1 < len(labels.Content); i += 2 {
			if labels.Content[i+1].Kind != yaml.ScalarNode {
				r.Selector = nil
				break
			}
			r.Selector[labels.Content[i].Value] = labels.Content[i+1].Value
		}
	}
	p.refused = append(p.refused, r)
}

var (
	securityText  = regexp.MustCompile(`(?m)security\.istio\.io|^\s*"?kind"?\s*:\s*"?(AuthorizationPolicy|PeerAuthentication|RequestAuthentication)`)
	kindText      = regexp.MustCompile(`\bkind"?\s*:\s*["']?([A-Za-z]+)`)
	namespaceText = regexp.MustCompile(`\bnamespace"?\s*:\s*["']?([a-z0-9-]+)`)
	nameText      = regexp.MustCompile(`\bname"?\s*:\s*["']?([a-z0-9.-]+)`)
)

// refuseText notes a security object in text that is not even YAML. Its labels
// cannot be trusted, so its namespace is denied.
func (p *parsed) refuseText(pos Position, text []byte, err error) {
	if !securityText.Match(text) {
		return
	}
	first := func(re *regexp.Regexp, otherwise string) string {
		if m := re.FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return otherwise
	}
	ref := Ref{groupSecurity, first(kindText, "AuthorizationPolicy"), first(namespaceText, metav1.NamespaceDefault), first(nameText, "unreadable")}
	p.refused = append(p.refused, Refused{Ref: ref, Position: pos, Reason: err.Error()})
}
