package translate

import (
	"slices"

	securityv1beta1 "istio.io/api/security/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
)

// The names that istiod gives to policies made of PeerAuthentications.
const (
	strictName      = "istio_converted_static_strict"
	convertedPrefix = "converted_peer_authentication_"
)

// peerPolicies are the PeerAuthentications: STRICT is a DENY of those who proved
// no identity.
type peerPolicies struct {
	root      string
	wire      []*securityapi.Authorization
	mesh      bool            // strict where no one says otherwise
	namespace map[string]bool // strict, by namespace
	workload  []peerOfWorkload
}

// peerOfWorkload is a PeerAuthentication with a selector.
type peerOfWorkload struct {
	namespace string
	labels    map[string]string
	key       string // the policy to name, or "": no connection is refused
}

func (w *world) peerPolicies() *peerPolicies {
	p := &peerPolicies{root: w.root(), namespace: map[string]bool{}}
	all := oldest(w.PeerAuthentications)
	if len(all) > 0 {
		p.wire = append(p.wire, peerPolicy(p.root, strictName, nil))
	}
	p.inherited(all)
	for _, a := range all {
		if labels := a.Spec.GetSelector().GetMatchLabels(); len(labels) > 0 {
			p.workload = append(p.workload, peerOfWorkload{a.Namespace, labels, p.convert(a)})
		}
	}
	return p
}

// inherited reads the settings of mesh and namespaces; the oldest of each counts.
func (p *peerPolicies) inherited(all []*securityv1.PeerAuthentication) {
	seen := map[string]bool{}
	for _, a := range all {
		if len(a.Spec.GetSelector().GetMatchLabels()) > 0 || seen[a.Namespace] {
			continue
		}
		seen[a.Namespace] = true
		if strict, set := isStrict(a.Spec.GetMtls()); set && a.Namespace == p.root {
			p.mesh = strict
		} else if set {
			p.namespace[a.Namespace] = strict
		}
	}
}

func (p *peerPolicies) inNamespace(namespace string) bool {
	if strict, set := p.namespace[namespace]; set {
		return strict
	}
	return p.mesh
}

// isStrict reads a mode. DISABLE is as PERMISSIVE: nothing is refused.
func isStrict(m *securityv1beta1.PeerAuthentication_MutualTLS) (strict, set bool) {
	mode := m.GetMode()
	return mode == securityv1beta1.PeerAuthentication_MutualTLS_STRICT, mode != securityv1beta1.PeerAuthentication_MutualTLS_UNSET
}

// convert makes the policy of a PeerAuthentication with a selector: the mode of
// the workload, or else of what it inherits, and the ports that differ from it.
func (p *peerPolicies) convert(a *securityv1.PeerAuthentication) (key string) {
	strict, set := isStrict(a.Spec.GetMtls())
	if !set {
		strict = p.inNamespace(a.Namespace)
	}
	var differ []uint32
	for port, m := range a.Spec.GetPortLevelMtls() {
		if portStrict, set := isStrict(m); set && portStrict != strict {
			differ = append(differ, port)
		}
	}
	slices.Sort(differ)
	switch {
	case len(differ) == 0 && strict:
		return p.root + "/" + strictName
	case len(differ) == 0:
		return ""
	}
	match := &securityapi.Match{DestinationPorts: differ}
	if strict {
		match = &securityapi.Match{NotDestinationPorts: differ}
	}
	policy := peerPolicy(a.Namespace, convertedPrefix+a.Name, match)
	p.wire = append(p.wire, policy)
	return PolicyName(policy)
}

// peerPolicy denies those who proved no identity, where ports match.
func peerPolicy(namespace, name string, ports *securityapi.Match) *securityapi.Authorization {
	var clauses []*securityapi.Rules
	if ports != nil {
		clauses = append(clauses, &securityapi.Rules{Matches: []*securityapi.Match{ports}})
	}
	clauses = append(clauses, &securityapi.Rules{Matches: []*securityapi.Match{{NotPrincipals: presence()}}})
	return &securityapi.Authorization{
		Name: name, Namespace: namespace, Scope: securityapi.Scope_WORKLOAD_SELECTOR, Action: securityapi.Action_DENY,
		Groups: []*securityapi.Group{{Rules: clauses}},
	}
}

// forWorkload is the key of the policy that holds for a workload, or "".
func (p *peerPolicies) forWorkload(namespace string, labels map[string]string) string {
	for _, a := range p.workload {
		if a.namespace == namespace && selects(a.labels, labels) {
			return a.key
		}
	}
	if p.inNamespace(namespace) {
		return p.root + "/" + strictName
	}
	return ""
}
