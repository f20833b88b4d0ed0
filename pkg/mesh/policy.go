package mesh

import "net/netip"

// PolicyScope is what a policy applies to.
type PolicyScope uint8

// The scopes of authorization.proto, with its numbers.
const (
	ScopeGlobal PolicyScope = iota
	ScopeNamespace
	ScopeWorkload // only workloads that name it
)

// PolicyAction is what a match means.
type PolicyAction uint8

// The actions of authorization.proto, with its numbers.
const (
	ActionAllow PolicyAction = iota
	ActionDeny
)

// Policy is one L4 authorization policy.
// A published Policy is never changed: replace it.
type Policy struct {
	Name      string
	Namespace string
	Scope     PolicyScope
	Action    PolicyAction
	// Rules are alternatives: one match suffices. None never matches.
	Rules []PolicyRule
	// DryRun policies are evaluated and reported, never enforced.
	DryRun bool
}

// Key is the resource name, "namespace/name".
func (p *Policy) Key() string { return p.Namespace + "/" + p.Name }

// PolicyRule matches when all its clauses do; without clauses it matches.
type PolicyRule struct {
	Clauses []PolicyClause
}

// PolicyClause matches when any of its matches does; without any, it matches.
type PolicyClause struct {
	Matches []PolicyMatch
}

// PolicyMatch holds when each field that is set holds and no Not field does.
// The empty PolicyMatch never holds.
type PolicyMatch struct {
	Namespaces, NotNamespaces           []StringMatch
	Principals, NotPrincipals           []StringMatch
	ServiceAccounts, NotServiceAccounts []ServiceAccountMatch
	SourceIPs, NotSourceIPs             []netip.Prefix
	DestinationIPs, NotDestinationIPs   []netip.Prefix
	DestinationPorts                    []uint16
	NotDestinationPorts                 []uint16
}

// ServiceAccountMatch compares a service account, in any trust domain.
type ServiceAccountMatch struct {
	Namespace, ServiceAccount string
}

// StringMatchKind is how a StringMatch compares.
type StringMatchKind uint8

// The kinds of authorization.proto's StringMatch.
const (
	MatchExact StringMatchKind = iota
	MatchPrefix
	MatchSuffix
	MatchPresence // any non-empty value
)

// StringMatch compares one string.
type StringMatch struct {
	Kind  StringMatchKind
	Value string
}
