package translate

import (
	"cmp"
	"slices"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
)

// policySet is the policies of one translation and who names them.
type policySet struct {
	w      *world
	wire   []*securityapi.Authorization
	denied int
	// selecting are policies with a selector; workloads name them.
	selecting []selecting
	peers     *peerPolicies
}

type selecting struct {
	key       string // "namespace/name"
	namespace string // "" selects in every namespace
	labels    map[string]string
}

func collectPolicies(w *world) *policySet {
	s := &policySet{w: w}
	for _, p := range w.AuthorizationPolicies {
		s.authorization(p)
	}
	s.peers = w.peerPolicies()
	s.wire = append(s.wire, s.peers.wire...)
	s.refused()
	s.sort()
	return s
}

func (s *policySet) sort() {
	slices.SortFunc(s.wire, func(a, b *securityapi.Authorization) int { return cmp.Compare(PolicyName(a), PolicyName(b)) })
}

// add takes a policy that has a selector, or not: then it holds for its
// namespace, or for the mesh if that is the root namespace.
func (s *policySet) add(p *securityapi.Authorization, selector map[string]string) {
	namespace := p.Namespace
	if namespace == s.w.root() {
		namespace = ""
	}
	switch {
	case len(selector) > 0:
		p.Scope = securityapi.Scope_WORKLOAD_SELECTOR
		s.selecting = append(s.selecting, selecting{PolicyName(p), namespace, selector})
	case namespace == "":
		p.Scope = securityapi.Scope_GLOBAL
	default:
		p.Scope = securityapi.Scope_NAMESPACE
	}
	s.wire = append(s.wire, p)
}

// forWorkload are the keys of the policies that a workload must name: those that
// select it, sorted, and what PeerAuthentication asks of it.
func (s *policySet) forWorkload(namespace string, labels map[string]string) []string {
	var keys []string
	for _, p := range s.selecting {
		if (p.namespace == "" || p.namespace == namespace) && selects(p.labels, labels) {
			keys = append(keys, p.key)
		}
	}
	slices.Sort(keys)
	if peer := s.peers.forWorkload(namespace, labels); peer != "" {
		keys = append(keys, peer)
	}
	return keys
}

// always is a rule that matches every connection: one without clauses. An empty
// Match would be skipped and so never match; none is ever made here.
func always() []*securityapi.Group { return []*securityapi.Group{{}} }

func presence() []*securityapi.StringMatch {
	return []*securityapi.StringMatch{{MatchType: &securityapi.StringMatch_Presence{}}}
}
