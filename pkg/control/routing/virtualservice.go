package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

const (
	kindVirtualService = "VirtualService"
	networkingVersion  = "networking.istio.io/v1"
	meshName           = "mesh"
)

// virtual is a translated VirtualService.
type virtual struct {
	object *networkingv1.VirtualService
	owner  *owner
	rules  []*rule
	// errs keep it from being used; dropped are matches that are left out.
	errs, dropped []string
	// pure: made of the object alone, so that the next state may use it again.
	pure bool
	// services are those that it acts at.
	services []*model.Service
}

func virtualObject(v *networkingv1.VirtualService) status.Object {
	return status.Object{APIVersion: networkingVersion, Kind: kindVirtualService, Namespace: v.Namespace, Name: v.Name}
}

func virtualOwner(v *networkingv1.VirtualService) *owner {
	title := v.Name
	if len(v.Spec.Hosts) > 0 {
		title = v.Spec.Hosts[0]
	}
	return &owner{object: virtualObject(v), title: title, metadata: configMetadata("networking.istio.io", "virtual-service", v)}
}

// configMetadata names the object that a route comes from, as istiod does.
func configMetadata(group, kind string, o metav1.Object) *corev3.Metadata {
	path := fmt.Sprintf("/apis/%s/v1/namespaces/%s/%s/%s", group, o.GetNamespace(), kind, o.GetName())
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
		"istio": {Fields: map[string]*structpb.Value{"config": structpb.NewStringValue(path)}},
	}}
}

// candidate is a VirtualService's claim on a host.
type candidate struct {
	virtual *virtual
	host    string
}

// compare puts exact hosts first, then the longer wildcard, then the older object.
func (c candidate) compare(o candidate) int {
	a, b := c.virtual.object, o.virtual.object
	return cmp.Or(compareBool(wildcard(c.host), wildcard(o.host)), cmp.Compare(len(o.host), len(c.host)), compareAge(a, b))
}

// indexVirtualServices finds what each VirtualService is in effect for.
func (b *Builder) indexVirtualServices(previous *Builder) {
	b.delegated = b.delegates()
	for _, v := range b.model.Objects.VirtualServices {
		if len(v.Spec.Hosts) == 0 {
			b.delegateStatus(v)
			continue
		}
		b.addVirtual(v, previous)
	}
	for _, all := range b.virtuals {
		slices.SortFunc(all, candidate.compare)
	}
}

// addVirtual adds a VirtualService at the end of those of its services.
func (b *Builder) addVirtual(v *networkingv1.VirtualService, previous *Builder) *virtual {
	c := b.prepared(v, previous)
	b.kept[v] = c
	b.impure += count(!c.pure)
	b.accepted(c)
	effect := b.effect(v)
	c.services = nil
	for _, s := range effect.services {
		if len(c.errs) == 0 && len(v.Spec.Http) > 0 {
			c.services = append(c.services, s)
			b.virtuals[s] = append(b.virtuals[s], candidate{c, effect.hosts[s]})
		}
	}
	b.status(virtualObject(v)).Set(effect.condition())
	return c
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func wildcard(host string) bool { return strings.HasPrefix(host, "*") }

func compareAge[T metav1.Object](a, b T) int {
	x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
	return cmp.Or(x.Compare(y.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
}

// accepted says whether a VirtualService could be taken as it is written.
func (b *Builder) accepted(v *virtual) {
	c := status.Condition{Type: status.Accepted, Status: "True", Reason: "Accepted", Message: "taken as written"}
	switch {
	case len(v.errs) > 0:
		c.Status, c.Reason, c.Message = "False", "Invalid", "not used: "+strings.Join(v.errs, "; ")
	case len(v.dropped) > 0:
		c.Status, c.Reason, c.Message = "False", "PartlyInvalid", strings.Join(v.dropped, "; ")
	}
	b.status(v.owner.object).Set(c)
}

// virtualServices adds the routes of the VirtualServices of the service.
func (t *table) virtualServices() {
	routed := t.producer
	for _, c := range t.b.virtuals[t.service] {
		v := c.virtual
		if routed && !t.closed {
			t.remark(v, "for %s the rules of HTTPRoutes and GRPCRoutes are tried before", t.service.Hostname)
		}
		for _, r := range v.rules {
			if t.closed {
				t.remark(v, "for %s spec.http[%d] is never reached, nor what follows: a rule before takes every request", t.service.Hostname, r.index)
				break
			}
			if t.use(r) {
				t.producer = true
			}
		}
	}
}
