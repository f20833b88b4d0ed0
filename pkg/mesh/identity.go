package mesh

import (
	"fmt"
	"strings"
)

const spiffeScheme = "spiffe://"

// DefaultTrustDomain is used where the wire leaves the trust domain out.
const DefaultTrustDomain = "cluster.local"

// Identity is who a workload is: its service account, in its namespace, in a
// trust domain. The zero value means "not proven".
type Identity struct {
	TrustDomain    string
	Namespace      string
	ServiceAccount string
}

// IsZero reports whether no identity was proven.
func (i Identity) IsZero() bool { return i == Identity{} }

// String is the SPIFFE ID, spiffe://<trust domain>/ns/<namespace>/sa/<service
// account>, or "" for the zero value.
func (i Identity) String() string {
	if i.IsZero() {
		return ""
	}
	return spiffeScheme + i.Principal()
}

// Principal is the form that policies compare: the SPIFFE ID without its scheme.
func (i Identity) Principal() string {
	if i.IsZero() {
		return ""
	}
	return i.TrustDomain + "/ns/" + i.Namespace + "/sa/" + i.ServiceAccount
}

// ParseIdentity reads a SPIFFE ID of Istio's form. Anything else, also a valid
// SPIFFE ID of another form, is an error.
func ParseIdentity(s string) (Identity, error) {
	rest, ok := strings.CutPrefix(s, spiffeScheme)
	if !ok {
		return Identity{}, fmt.Errorf("identity %q: want %s<trust domain>/ns/<namespace>/sa/<service account>", s, spiffeScheme)
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" || parts[0] == "" || parts[2] == "" || parts[4] == "" {
		return Identity{}, fmt.Errorf("identity %q: want %s<trust domain>/ns/<namespace>/sa/<service account>", s, spiffeScheme)
	}
	return Identity{TrustDomain: parts[0], Namespace: parts[2], ServiceAccount: parts[4]}, nil
}
