package envoy

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// The labels of failoverPriority that a locality or the cluster answers, beside
// those of the pods.
const (
	labelRegion  = corev1.LabelTopologyRegion
	labelZone    = corev1.LabelTopologyZone
	labelSubZone = "topology.istio.io/subzone"
	labelCluster = "topology.istio.io/cluster"
	labelNetwork = "topology.istio.io/network"
	labelNode    = corev1.LabelHostname
)

// spread applies locality settings: a rule's, else the service's traffic
// distribution, else the mesh's. Distribution sets weights. Failover sets
// priorities, and wants outlier detection unless the service asks for it, for
// otherwise nothing would ever fail over.
func (g *generator) spread(groups []*localityGroup, s *model.Service, policy *networkingapi.TrafficPolicy) []*localityGroup {
	setting, forced := policy.GetLoadBalancer().GetLocalityLbSetting(), false
	if setting == nil {
		if order := trafficDistribution(s); order != nil {
			setting, forced = &networkingapi.LocalityLoadBalancerSetting{FailoverPriority: order}, true
		} else {
			setting = g.m.Objects.Mesh.GetLocalityLbSetting()
		}
	}
	if e := setting.GetEnabled(); e != nil && !e.GetValue() || g.o.Locality == (Locality{}) {
		return groups
	}
	switch {
	case len(setting.GetDistribute()) > 0:
		return distribute(groups, g.o.Locality, setting.GetDistribute())
	case policy.GetOutlierDetection() == nil && !forced:
		return groups
	case len(setting.GetFailoverPriority()) > 0:
		groups = g.byLabels(groups, setting.GetFailoverPriority())
		if len(setting.GetFailover()) == 0 {
			return groups
		}
	default:
		for _, l := range groups {
			l.priority = g.o.Locality.distance(l.Locality)
		}
	}
	for _, l := range groups {
		for _, f := range setting.GetFailover() {
			if f.From == g.o.Locality.Region && l.Region != f.From && l.Region != f.To {
				l.priority++ // after the region that was named
			}
		}
	}
	return consecutive(groups)
}

// distance is 0 in the same subzone, 3 in another region.
func (l Locality) distance(o Locality) uint32 {
	switch {
	case l.Region != o.Region:
		return 3
	case l.Zone != o.Zone:
		return 2
	case l.SubZone != o.SubZone:
		return 1
	}
	return 0
}

// consecutive makes priorities 0, 1, 2, ... without gaps, which Envoy wants.
func consecutive(groups []*localityGroup) []*localityGroup {
	used := map[uint32]bool{}
	for _, l := range groups {
		used[l.priority] = true
	}
	order := slices.Sorted(maps.Keys(used))
	for _, l := range groups {
		i, _ := slices.BinarySearch(order, l.priority)
		l.priority = uint32(i)
	}
	slices.SortStableFunc(groups, func(a, b *localityGroup) int {
		return cmp.Or(a.compare(b.Locality), cmp.Compare(a.priority, b.priority))
	})
	return groups
}

// distribute gives localities the weights that the first setting for the caller's
// locality wants. Those it does not name get nothing.
func distribute(groups []*localityGroup, from Locality, settings []*networkingapi.LocalityLoadBalancerSetting_Distribute) []*localityGroup {
	i := slices.IndexFunc(settings, func(d *networkingapi.LocalityLoadBalancerSetting_Distribute) bool { return from.in(d.From) })
	if i < 0 {
		return groups
	}
	to := settings[i].To
	var out []*localityGroup
	for _, l := range groups {
		// The most specific of those that cover it.
		best := ""
		for _, k := range slices.Sorted(maps.Keys(to)) {
			if l.in(k) && (best == "" || specific(k) > specific(best)) {
				best = k
			}
		}
		if best == "" || to[best] == 0 {
			continue
		}
		var all, own uint32
		for _, other := range groups {
			if other.in(best) {
				all += other.sum()
			}
		}
		own = l.sum()
		l.weight = uint32(math.Ceil(float64(own) * float64(to[best]) / float64(all)))
		out = append(out, l)
	}
	return out
}

func (l *localityGroup) sum() (n uint32) {
	for _, h := range l.hosts {
		n += h.out.LoadBalancingWeight.GetValue()
	}
	return n
}

// in tells whether a locality is covered by "region/zone/subzone", of which the
// end may be "*" or left out.
func (l Locality) in(pattern string) bool {
	for i, part := range strings.SplitN(pattern, "/", 3) {
		if part == "*" || part == "" {
			return true
		}
		if part != [3]string{l.Region, l.Zone, l.SubZone}[i] {
			return false
		}
	}
	return true
}

func specific(pattern string) int {
	return len(strings.Split(strings.TrimSuffix(strings.TrimSuffix(pattern, "*"), "/"), "/"))
}

// byLabels gives priority to endpoints by how many of the labels, from the first
// on, they share with the waypoint: all of them is priority 0. A label may say
// which value counts, "key=value".
func (g *generator) byLabels(groups []*localityGroup, order []string) []*localityGroup {
	own := func(key string) string {
		switch key {
		case labelRegion:
			return g.o.Locality.Region
		case labelZone:
			return g.o.Locality.Zone
		case labelSubZone:
			return g.o.Locality.SubZone
		case labelCluster:
			return g.m.ClusterID
		case labelNetwork:
			return g.m.Network
		}
		return g.o.Labels[key]
	}
	var out []*localityGroup
	for _, l := range groups {
		parts := map[uint32]*localityGroup{}
		for _, h := range l.hosts {
			shared := 0
			for _, label := range order {
				key, want, fixed := strings.Cut(label, "=")
				if !fixed {
					want = own(key)
				}
				if labelOf(h.of, key) != want {
					break
				}
				shared++
			}
			p := uint32(len(order) - shared)
			if parts[p] == nil {
				parts[p] = &localityGroup{Locality: l.Locality, priority: p}
				out = append(out, parts[p])
			}
			parts[p].hosts = append(parts[p].hosts, h)
		}
	}
	return consecutive(out)
}

func labelOf(e *model.Endpoint, key string) string {
	switch key {
	case labelRegion:
		return e.Region
	case labelZone:
		return e.Zone
	case labelSubZone:
		return e.SubZone
	case labelCluster:
		return e.Cluster
	case labelNetwork:
		return e.Network
	case labelNode:
		return e.Node
	}
	return e.Labels[key]
}

// trafficDistribution is the order that a service asks for, nil for none.
func trafficDistribution(s *model.Service) []string {
	how := ""
	switch {
	case s.Kube != nil && s.Kube.Spec.TrafficDistribution != nil:
		how = *s.Kube.Spec.TrafficDistribution
	case s.Kube != nil:
		how = s.Kube.Annotations["networking.istio.io/traffic-distribution"]
	case s.Entry != nil:
		how = s.Entry.Annotations["networking.istio.io/traffic-distribution"]
	}
	order := []string{labelNetwork, labelRegion, labelZone}
	switch strings.ToLower(how) {
	case "preferclose", "prefersamezone":
		return order
	case "prefersamenode":
		return append(order, labelSubZone, labelNode)
	}
	return nil
}
