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

// indexVirtualServices finds what each VirtualService is in effect for.
func (b *Builder) indexVirtualServices(previous *Builder) {
	delegates := b.delegates()
	claims := map[*model.Service][]candidate{}
	for _, v := range oldestFirst(b.model.Objects.VirtualServices) {
		if len(v.Spec.Hosts) == 0 {
			b.delegateStatus(v, delegates)
			continue
		}
		c := b.prepared(v, previous)
		b.kept[v] = c
		b.accepted(c)
		effect := b.effect(v)
		for _, s := range effect.services {
			if len(c.errs) == 0 && len(v.Spec.Http) > 0 {
				claims[s] = append(claims[s], candidate{c, effect.hosts[s]})
			}
		}
		b.status(virtualObject(v)).Set(effect.condition())
	}
	for _, s := range b.model.Services {
		all := claims[s]
		// Exact hosts first, then the longer wildcard; age and name are kept.
		slices.SortStableFunc(all, func(x, y candidate) int {
			return cmp.Or(compareBool(wildcard(x.host), wildcard(y.host)), cmp.Compare(len(y.host), len(x.host)))
		})
		for i, c := range all {
			if i > 0 {
				b.rank(s, all, i)
			}
			b.virtuals[s] = append(b.virtuals[s], c.virtual)
		}
	}
}

func wildcard(host string) bool { return strings.HasPrefix(host, "*") }

// rank tells of a VirtualService that others' rules are tried before its own.
func (b *Builder) rank(s *model.Service, all []candidate, i int) {
	var before []string
	for _, c := range all[:i] {
		before = append(before, c.virtual.object.Namespace+"/"+c.virtual.object.Name)
	}
	b.remark(all[i].virtual, "for %s the rules of %s are tried before (an exact host before a wildcard, then the oldest, then by name)", s.Hostname, strings.Join(before, ", "))
}

// remark adds to what is said of a VirtualService that is in effect.
func (b *Builder) remark(v *virtual, format string, args ...any) {
	st := b.status(v.owner.object)
	for _, c := range st.Conditions {
		if text := fmt.Sprintf(format, args...); c.Type == status.InEffect && !strings.Contains(c.Message, text) {
			c.Message += "; " + text
			st.Set(c)
			return
		}
	}
}

// oldestFirst orders objects by age, then by namespace and name.
func oldestFirst[T metav1.Object](in []T) []T {
	return slices.SortedStableFunc(slices.Values(in), func(a, b T) int {
		x, y := a.GetCreationTimestamp(), b.GetCreationTimestamp()
		return cmp.Or(x.Compare(y.Time), cmp.Compare(a.GetNamespace(), b.GetNamespace()), cmp.Compare(a.GetName(), b.GetName()))
	})
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
	for _, v := range t.b.virtuals[t.service] {
		if routed && !t.closed {
			t.b.remark(v, "for %s the rules of HTTPRoutes and GRPCRoutes are tried before", t.service.Hostname)
		}
		for _, r := range v.rules {
			if t.closed {
				t.b.remark(v, "for %s spec.http[%d] is never reached, nor what follows: a rule before takes every request", t.service.Hostname, r.index)
				break
			}
			if t.use(r) {
				t.producer = true
			}
		}
	}
}
