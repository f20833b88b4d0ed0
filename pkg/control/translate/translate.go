package translate

import (
	"cmp"
	"slices"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Translate is the whole of the package: objects in, resources and statuses out.
// The objects must have come from package source, which checked them.
func Translate(in *source.Objects, opts Options) (Output, error) {
	out, _, err := translate(in, opts)
	return out, err
}

func translate(in *source.Objects, opts Options) (out Output, p *pods, err error) {
	if err := opts.validate(); err != nil {
		return Output{}, nil, err
	}
	w := newWorld(in, opts)
	w.services = append(kubeServices(w), w.serviceEntryServices()...)
	w.selectors = newSelectors(w.services)
	for _, s := range w.services {
		out.Addresses = append(out.Addresses, &workloadapi.Address{Type: &workloadapi.Address_Service{Service: s.wire}})
	}
	policies := collectPolicies(w)
	workloads := slices.Concat(w.podWorkloads(policies), w.sliceWorkloads(), w.workloadEntryWorkloads(policies), w.serviceEntryWorkloads(policies))
	policies.requireWaypoints(workloads)
	out.Policies, out.Denied = policies.wire, policies.denied
	for _, wl := range workloads {
		out.Addresses = append(out.Addresses, &workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: wl.wire}})
	}
	out.Model = w.model(workloads)
	slices.SortFunc(out.Addresses, func(a, b *workloadapi.Address) int { return cmp.Compare(AddressName(a), AddressName(b)) })
	w.reportProblems()
	out.Status = w.said()
	return out, newPods(w, policies, workloads, out.Model), nil
}
