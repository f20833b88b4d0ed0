package translate

import (
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	securityapi "github.com/fairlead-mesh/fairlead/api/security"
	workloadapi "github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	// annotationWaypoint on a waypoint's Gateway, or a label of that name, says with the
	// value "required" that nothing may go around it.
	annotationWaypoint = "fairlead.dev/waypoint"
	waypointRequired   = "required"
	// requiredPrefix begins the names of the policies that see to that.
	requiredPrefix = "fairlead_waypoint_required_"
)

// required tells whether a waypoint may not be gone around.
func (p *waypoint) required() bool {
	return p.gateway.Annotations[annotationWaypoint] == waypointRequired || p.gateway.Labels[annotationWaypoint] == waypointRequired
}

// decides tells whether the waypoint decides by the policies of layer 4: it is one of
// ours, or an Envoy that gets them as filters. What stands behind a Gateway of another
// class is configured by others.
func (p *waypoint) decides() bool { return p.gateway.Spec.GatewayClassName == classWaypoint }

// principal is who the waypoint's pods are.
func (w *world) principal(p *waypoint) string {
	return w.Mesh.GetTrustDomain() + "/ns/" + p.gateway.Namespace + "/sa/" + serviceAccount(p.gateway)
}

// mustPass is the waypoint that an object's traffic may not go around, ready or not, or
// nil.
func (w *world) mustPass(meta metav1.ObjectMeta, traffic string) *waypoint {
	namespace, name, _ := w.wanted(meta)
	wp := w.waypoints[namespace+"/"+name]
	if name == "" || wp == nil || !wp.required() || wp.traffic != traffic && wp.traffic != trafficAll {
		return nil
	}
	if namespace != meta.Namespace && !w.allows(wp.gateway, meta.Namespace) {
		return nil
	}
	return wp
}

// requireWaypoints has the nodes of workloads refuse what did not come through a
// waypoint that is required: a DENY of all others, which every node proxy obeys. A
// workload behind several may be reached through each of them.
func (s *policySet) requireWaypoints(workloads []*workload) {
	services := map[string]*service{}
	for _, svc := range s.w.services {
		services[svc.key] = svc
	}
	made := map[string]bool{}
	for _, wl := range workloads {
		through := map[string]*waypoint{}
		note := func(p *waypoint) {
			if p != nil {
				through[p.gateway.Namespace+"."+p.gateway.Name] = p
			}
		}
		note(s.w.mustPass(metav1.ObjectMeta{Namespace: wl.wire.Namespace, Labels: wl.labels}, trafficWorkload))
		for key := range wl.wire.Services {
			svc := services[key]
			if svc == nil || svc.wire.Namespace != wl.wire.Namespace {
				continue
			}
			note(s.w.mustPass(svc.meta(), trafficService))
		}
		wl.authorizedByWaypoints(services)
		if len(through) == 0 || len(wl.wire.Addresses) == 0 {
			continue
		}
		name := requiredPrefix + strings.Join(slices.Sorted(maps.Keys(through)), "_")
		key := wl.wire.Namespace + "/" + name
		if !made[key] {
			made[key] = true
			s.wire = append(s.wire, s.requiredPolicy(wl.wire.Namespace, name, through))
		}
		wl.wire.AuthorizationPolicies = append(wl.wire.AuthorizationPolicies, key)
		slices.Sort(wl.wire.AuthorizationPolicies)
	}
	s.sort()
}

// authorizedByWaypoints notes that the waypoints before a workload decide by the policies
// of layer 4, if there are any and all of them do.
func (wl *workload) authorizedByWaypoints(services map[string]*service) {
	bound, decide := false, true
	behind := func(p *waypoint) {
		if p != nil {
			bound, decide = true, decide && p.decides()
		}
	}
	behind(wl.waypoint)
	for key := range wl.wire.Services {
		// An EndpointSlice can name any pod, and says nothing of who may reach it.
		if svc := services[key]; svc != nil && svc.wire.Namespace == wl.wire.Namespace {
			behind(svc.waypoint)
		}
	}
	if bound && decide {
		wl.wire.Extensions = append(wl.wire.Extensions, &workloadapi.Extension{Name: mesh.ExtensionWaypointAuthorizes})
	}
}

func (s *policySet) requiredPolicy(namespace, name string, through map[string]*waypoint) *securityapi.Authorization {
	m := &securityapi.Match{}
	for _, key := range slices.Sorted(maps.Keys(through)) {
		m.NotPrincipals = append(m.NotPrincipals, &securityapi.StringMatch{MatchType: &securityapi.StringMatch_Exact{Exact: s.w.principal(through[key])}})
	}
	return &securityapi.Authorization{
		Name: name, Namespace: namespace, Scope: securityapi.Scope_WORKLOAD_SELECTOR, Action: securityapi.Action_DENY,
		Groups: []*securityapi.Group{{Rules: []*securityapi.Rules{{Matches: []*securityapi.Match{m}}}}},
	}
}

// meta is of the object that the service comes from.
func (s *service) meta() metav1.ObjectMeta {
	switch {
	case s.kube != nil:
		return s.kube.ObjectMeta
	case s.object != nil:
		return s.object.ObjectMeta
	}
	return metav1.ObjectMeta{Namespace: s.wire.Namespace}
}
