package mesh

// Delta is one change of what a node knows. Apply removals after additions of
// the same Delta only where the keys differ; a key is never in both.
type Delta struct {
	Workloads []*Workload
	Services  []*Service
	Policies  []*Policy
	// RemovedAddresses are resource names: a workload's uid or a service's key.
	RemovedAddresses []string
	// RemovedPolicies are policy keys.
	RemovedPolicies []string
}
