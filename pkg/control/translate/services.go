package translate

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// serviceChange is a Service as it was and as it is; either may be nil.
type serviceChange struct{ before, now *corev1.Service }

// either is one of the two, for what both have: namespace and name.
func (c serviceChange) either() *corev1.Service {
	if c.now != nil {
		return c.now
	}
	return c.before
}

// serviceChanges are the Services that differ. It returns false where one of them may
// matter for more than itself and the pods that it selects.
func (s *pods) serviceChanges(before, now *source.Objects) ([]serviceChange, bool) {
	gone, come := source.Difference(before.Services, now.Services)
	if len(gone)+len(come) == 0 {
		return nil, true
	}
	type name struct{ namespace, name string }
	at := map[name]int{}
	var changes []serviceChange
	for _, svc := range gone {
		at[name{svc.Namespace, svc.Name}] = len(changes)
		changes = append(changes, serviceChange{before: svc})
	}
	for _, svc := range come {
		if i, known := at[name{svc.Namespace, svc.Name}]; known {
			changes[i].now = svc
			continue
		}
		at[name{svc.Namespace, svc.Name}] = len(changes)
		changes = append(changes, serviceChange{now: svc})
	}
	for _, c := range changes {
		if !s.plainService(c, now) {
			return nil, false
		}
	}
	for _, slice := range now.EndpointSlices {
		if _, names := at[name{slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]}]; names {
			return nil, false
		}
	}
	// Which family of addresses is the cluster's, the first service tells, and pods after all of them.
	if !slices.Equal(serviceFamilies(before.Services), serviceFamilies(now.Services)) {
		return nil, false
	}
	return changes, true
}

// plainService tells whether a Service matters for itself and the pods that it selects
// alone: nothing is wrong with it, it is not where a waypoint is reached, no host or
// address of a ServiceEntry depends on it, and it selects no WorkloadEntries.
func (s *pods) plainService(c serviceChange, now *source.Objects) bool {
	of := c.either()
	if s.troubled[source.Ref{Kind: "Service", Namespace: of.Namespace, Name: of.Name}] {
		return false
	}
	for _, svc := range []*corev1.Service{c.before, c.now} {
		if svc == nil {
			continue
		}
		if svc.Labels[labelGatewayName] != "" {
			return false
		}
		for _, e := range now.WorkloadEntries {
			if e.Namespace == svc.Namespace && selects(svc.Spec.Selector, labelsOfEntry(e)) {
				return false
			}
		}
	}
	return len(now.ServiceEntries) == 0 || c.before != nil && c.now != nil && slices.Equal(clusterIPs(c.before), clusterIPs(c.now))
}

// replace has pods translated with the Services as they are now.
func (s *pods) replace(changes []serviceChange, now *source.Objects) {
	w := s.w
	w.Objects = now
	gone := map[*corev1.Service]bool{}
	for _, c := range changes {
		gone[c.before] = true
		of := c.either()
		delete(s.services, w.kubeKey(of))
		delete(w.statuses, serviceObject(of))
	}
	w.services = slices.DeleteFunc(slices.Clone(w.services), func(svc *service) bool { return svc.kube != nil && gone[svc.kube] })
	for _, c := range changes {
		if c.now != nil && served(c.now) {
			svc := w.kubeService(c.now)
			s.services[svc.key] = svc
			w.services = append(w.services, svc)
		}
	}
	w.selectors = newSelectors(w.services)
}

// selected are the pods, without those of come, which a Service has selected that changes,
// or selects now.
func (s *pods) selected(changes []serviceChange, come []*corev1.Pod) []*corev1.Pod {
	selectors := map[string][]map[string]string{} // by namespace
	for _, c := range changes {
		for _, svc := range []*corev1.Service{c.before, c.now} {
			if svc != nil {
				selectors[svc.Namespace] = append(selectors[svc.Namespace], svc.Spec.Selector)
			}
		}
	}
	known := make(map[*corev1.Pod]bool, len(come))
	for _, p := range come {
		known[p] = true
	}
	var out []*corev1.Pod
	for _, p := range s.w.Pods {
		if !known[p] && slices.ContainsFunc(selectors[p.Namespace], func(selector map[string]string) bool { return selects(selector, p.Labels) }) {
			out = append(out, p)
		}
	}
	return out
}

// applyServices makes the output's services, what is said of them, and their places in
// the model those of the changes; the pods behind them are as they were.
func (s *pods) applyServices(out *Output, changes []serviceChange) {
	for _, c := range changes {
		key := s.w.kubeKey(c.either())
		if svc := s.services[key]; svc != nil {
			out.put(&workloadapi.Address{Type: &workloadapi.Address_Service{Service: svc.wire}})
		} else {
			out.remove(key)
		}
	}
	out.Status = s.w.said()
	m, models, _ := s.w.modelWithoutEndpoints()
	for key, svc := range models {
		if before := s.models[key]; before != nil {
			m.Endpoints[svc.Index] = out.Model.Endpoints[before.Index]
		}
	}
	for i, wp := range out.Model.Waypoints { // the same, in the same order
		m.Waypoints[i].Workloads = wp.Workloads
	}
	s.models, out.Model = models, m
}

func serviceObject(s *corev1.Service) status.Object {
	return status.Object{APIVersion: "v1", Kind: "Service", Namespace: s.Namespace, Name: s.Name}
}
