package source

import (
	"regexp"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// refuse notes a wrong security object with what it selects, as far as that can
// be read: targets or labels, else its namespace.
func (p *parsed) refuse(pos Position, node *yaml.Node, ref Ref, reason string) {
	if ref.Namespace == "" {
		ref.Namespace = metav1.NamespaceDefault
	}
	spec := field(node, "spec")
	r := Refused{Ref: ref, Position: pos, Reason: reason}
	r.Targeted, r.Targets = targets(spec)
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

// targets reads targetRefs and targetRef. A list that cannot be read whole is
// read as none.
func targets(spec *yaml.Node) (targeted bool, out []Ref) {
	var refs []*yaml.Node
	if n := field(spec, "targetRef"); n != nil {
		targeted, refs = true, append(refs, n)
	}
	if n := field(spec, "targetRefs"); n != nil {
		targeted, refs = true, append(refs, n.Content...)
	}
	for _, n := range refs {
		kind, name := text(field(n, "kind")), text(field(n, "name"))
		if kind == "" || name == "" {
			return targeted, nil
		}
		out = append(out, Ref{Group: text(field(n, "group")), Kind: kind, Name: name})
	}
	return targeted, out
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
