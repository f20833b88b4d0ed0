package routing

import (
	"fmt"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// prepared translates a VirtualService, or takes it from an earlier state.
func (b *Builder) prepared(v *networkingv1.VirtualService, previous *Builder) *virtual {
	if previous != nil {
		if old := previous.kept[v]; old != nil && old.pure {
			return b.rebind(old)
		}
	}
	p := &preparer{b: b, virtual: &virtual{object: v, owner: virtualOwner(v), pure: true}}
	if text, ok := v.Annotations[AffinityAnnotation]; ok {
		a, err := parseAffinity(text)
		if err != nil {
			p.fail("metadata.annotations["+AffinityAnnotation+"]", "%v", err)
		}
		p.affinity = a
	}
	for i, h := range v.Spec.Http {
		p.route(i, h)
	}
	return p.virtual
}

// settings are what of the mesh translations depend on, whatever they refer to.
func (b *Builder) settings() string {
	return fmt.Sprint(b.domains, b.model.ClusterDomain, b.model.Objects.Mesh.GetDefaultHttpRetryPolicy())
}

// rebind is an earlier translation with the services of this state.
func (b *Builder) rebind(old *virtual) *virtual {
	out := *old
	out.rules = make([]*rule, len(old.rules))
	for i, r := range old.rules {
		now := *r
		now.destinations = make([]destination, len(r.destinations))
		for j, d := range r.destinations {
			d.service = b.service(d.host, old.object.Namespace)
			now.destinations[j] = d
		}
		now.mirrors = make([]mirror, len(r.mirrors))
		for j, m := range r.mirrors {
			m.service = b.service(m.host, old.object.Namespace)
			now.mirrors[j] = m
		}
		out.rules[i] = &now
	}
	return &out
}

// preparer translates one VirtualService.
type preparer struct {
	b        *Builder
	virtual  *virtual
	affinity *affinity
}

func (p *preparer) fail(path, format string, args ...any) {
	p.virtual.errs = append(p.virtual.errs, path+": "+fmt.Sprintf(format, args...))
}

// route translates one rule, or those of the delegate it names.
func (p *preparer) route(i int, h *networkingapi.HTTPRoute) {
	path := fmt.Sprintf("spec.http[%d]", i)
	namespace := p.virtual.object.Namespace
	var conditions []condition
	for _, m := range h.GetMatch() {
		conditions = append(conditions, conditionOf(m))
	}
	if h.GetDelegate() == nil {
		p.rule(path, i, namespace, h, conditions)
		return
	}
	p.virtual.pure = false
	p.checkPatterns(path, h)
	child := p.delegate(path, h.GetDelegate())
	if child == nil {
		return
	}
	for j, leaf := range child.Spec.Http {
		at := fmt.Sprintf("%s.delegate: VirtualService %s/%s: spec.http[%d]", path, child.Namespace, child.Name, j)
		merged, both, err := p.merge(h, conditions, leaf)
		if err != nil {
			p.virtual.dropped = append(p.virtual.dropped, at+": left out: "+err.Error())
			continue
		}
		p.rule(at, i, child.Namespace, merged, both)
	}
}

// rule adds one rule with its conditions, any of which may hold.
func (p *preparer) rule(path string, index int, namespace string, h *networkingapi.HTTPRoute, conditions []condition) {
	p.checkPatterns(path, h)
	r := &rule{owner: p.virtual.owner, index: index, name: h.GetName(), affinity: p.affinity}
	if len(conditions) == 0 {
		r.matches = []match{{envoy: matchAll}}
	}
	for i, c := range conditions {
		if !c.mesh() {
			continue
		}
		callers, err := p.b.callers(c)
		if len(c.sourceLabels) > 0 {
			p.virtual.pure = false // it depends on pods
		}
		if err != nil {
			p.virtual.dropped = append(p.virtual.dropped, fmt.Sprintf("%s.match[%d]: left out: %v", path, i, err))
			continue
		}
		m := match{envoy: envoyMatch(c), port: c.port, name: c.name, stats: c.stats}
		m.envoy.FilterState = callers
		r.matches = append(r.matches, m)
	}
	if len(r.matches) == 0 {
		return
	}
	p.action(path, r, namespace, h)
	if len(p.virtual.errs) == 0 {
		if err := r.validate(r.destinations); err != nil {
			p.fail(path, "Envoy would refuse it: %v", err)
		}
	}
	p.virtual.rules = append(p.virtual.rules, r)
}

// delegate finds the VirtualService that a rule delegates to.
func (p *preparer) delegate(path string, d *networkingapi.Delegate) *networkingv1.VirtualService {
	key := delegateKey(p.virtual.object.Namespace, d)
	child := p.b.virtualService(key)
	switch {
	case child == nil:
		p.virtual.dropped = append(p.virtual.dropped, fmt.Sprintf("%s.delegate: left out: there is no VirtualService %s/%s", path, key.Namespace, key.Name))
	case len(child.Spec.Hosts) > 0:
		p.virtual.dropped = append(p.virtual.dropped, fmt.Sprintf("%s.delegate: left out: VirtualService %s/%s has hosts, so it stands for itself", path, key.Namespace, key.Name))
	case !p.b.visible(child, p.virtual.object.Namespace):
		p.virtual.dropped = append(p.virtual.dropped, fmt.Sprintf("%s.delegate: left out: VirtualService %s/%s is not exported to namespace %s", path, key.Namespace, key.Name, p.virtual.object.Namespace))
	default:
		return child
	}
	return nil
}

// merge is a delegate's rule within the rule that delegates: both conditions must
// hold, and what the delegate does not say is taken from the root.
func (p *preparer) merge(root *networkingapi.HTTPRoute, conditions []condition, leaf *networkingapi.HTTPRoute) (*networkingapi.HTTPRoute, []condition, error) {
	if leaf.GetDelegate() != nil {
		return nil, nil, fmt.Errorf("a delegate cannot delegate again")
	}
	var both []condition
	switch {
	case len(leaf.GetMatch()) == 0:
		both = conditions
	case len(conditions) == 0:
		for _, m := range leaf.GetMatch() {
			both = append(both, conditionOf(m))
		}
	default:
		var err error
		for _, m := range leaf.GetMatch() {
			for _, c := range conditions {
				joined, e := c.and(conditionOf(m))
				if e != nil {
					err = e
					continue
				}
				both = append(both, joined)
			}
		}
		if len(both) == 0 {
			return nil, nil, err
		}
	}
	out := leaf.DeepCopy()
	switch {
	case out.Name == "":
		out.Name = root.Name
	case root.Name != "":
		out.Name = root.Name + "-" + out.Name
	}
	inherit(&out.Rewrite, root.Rewrite)
	inherit(&out.Timeout, root.Timeout)
	inherit(&out.Retries, root.Retries)
	inherit(&out.Fault, root.Fault)
	inherit(&out.CorsPolicy, root.CorsPolicy)
	inherit(&out.Headers, root.Headers)
	if out.Mirror == nil && len(out.Mirrors) == 0 {
		out.Mirror, out.MirrorPercentage, out.Mirrors = root.Mirror, root.MirrorPercentage, root.Mirrors
	}
	return out, both, nil
}

func inherit[T any](leaf **T, root *T) {
	if *leaf == nil {
		*leaf = root
	}
}

// delegates are the VirtualServices that others delegate to, with the first that
// does.
func (b *Builder) delegates() map[model.Key]string {
	out := map[model.Key]string{}
	for _, v := range b.model.Objects.VirtualServices {
		for _, h := range v.Spec.Http {
			if key := delegateKey(v.Namespace, h.GetDelegate()); h.GetDelegate() != nil && len(v.Spec.Hosts) > 0 && out[key] == "" {
				out[key] = v.Namespace + "/" + v.Name
			}
		}
	}
	return out
}

func delegateKey(namespace string, d *networkingapi.Delegate) model.Key {
	if d.GetNamespace() != "" {
		namespace = d.GetNamespace()
	}
	return model.Key{Namespace: namespace, Name: d.GetName()}
}

// delegateStatus says whether a VirtualService without hosts is of any use.
func (b *Builder) delegateStatus(v *networkingv1.VirtualService) {
	c := status.Condition{Type: status.InEffect, Status: "False", Reason: "NoHosts",
		Message: "not in effect: it has no hosts, and no VirtualService delegates to it"}
	if root := b.delegated[model.Key{Namespace: v.Namespace, Name: v.Name}]; root != "" {
		c = status.Condition{Type: status.InEffect, Status: "True", Reason: "Delegate", Message: "VirtualService " + root + " delegates to it: see there"}
	}
	b.status(virtualObject(v)).Set(c)
}

func (b *Builder) virtualService(key model.Key) *networkingv1.VirtualService {
	for _, v := range b.model.Objects.VirtualServices {
		if v.Namespace == key.Namespace && v.Name == key.Name {
			return v
		}
	}
	return nil
}

// visible tells whether a delegate may be used from a namespace.
func (b *Builder) visible(v *networkingv1.VirtualService, namespace string) bool {
	to := v.Spec.ExportTo
	if len(to) == 0 {
		to = b.model.Objects.Mesh.GetDefaultVirtualServiceExportTo()
	}
	if len(to) == 0 || v.Namespace == namespace {
		return true
	}
	for _, t := range to {
		if t == "*" || t == namespace {
			return true
		}
	}
	return false
}
