package streaminfo

import "strings"

// Workload labels telemetry: Istio's names. Empty values are "unknown".
type Workload struct {
	Name, Namespace, Principal          string
	CanonicalService, CanonicalRevision string
	App, Version, Cluster               string
}

// maxLabel bounds what a tunnel may say of its caller, in bytes: the longest name
// that Kubernetes knows.
const maxLabel = 253

// FromEndpoint is what an endpoint's metadata says of the workload there, in our
// form or in istiod's, or nil.
func FromEndpoint(m Metadata) *Workload {
	if own := m["mesh"]; own != nil {
		at := func(key string) string {
			s, _ := own[key].(string)
			return s
		}
		w := Workload{
			Name: at("workload"), Namespace: at("namespace"), Principal: at("principal"), CanonicalService: at("service"),
			CanonicalRevision: at("revision"), App: at("app"), Version: at("version"), Cluster: at("cluster"),
		}
		if w != (Workload{}) {
			return &w
		}
	}
	packed, _ := m["istio"]["workload"].(string)
	parts := strings.Split(packed, ";")
	if len(parts) != 5 {
		return nil
	}
	return &Workload{Name: parts[0], Namespace: parts[1], CanonicalService: parts[2], CanonicalRevision: parts[3], Cluster: parts[4]}
}

// FromState is what the filters of a tunnel kept of its caller, or nil. It is the
// word of an authenticated peer: for labels, not for decisions.
func FromState(state map[string]string) *Workload {
	at := func(key string) string {
		v := state["mesh.source_"+key]
		return strings.ToValidUTF8(v[:min(len(v), maxLabel)], "")
	}
	w := Workload{
		Name: at("workload"), Namespace: at("workload_namespace"), CanonicalService: at("canonical_service"),
		CanonicalRevision: at("canonical_revision"), Cluster: at("cluster"),
	}
	if w == (Workload{}) {
		return nil
	}
	w.App, w.Version = w.CanonicalService, w.CanonicalRevision
	return &w
}
