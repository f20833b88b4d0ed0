package rbac

import (
	"fmt"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	securityapi "istio.io/api/security/v1beta1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

// The filters' names and statistics are Istio's.
const (
	HTTPFilterName    = "envoy.filters.http.rbac"
	NetworkFilterName = "envoy.filters.network.rbac"
	statPrefix        = "tcp."
	shadowAllowPrefix = "istio_dry_run_allow_"
	shadowDenyPrefix  = "istio_dry_run_deny_"
)

// Lead is where routes lead: a port of a service.
type Lead struct {
	Service *model.Service
	Port    uint32
}

// HTTPFilters are the filters before requests to a port of a service, in order:
// what denies, then what allows. With s nil they are those before requests to
// workloads' own addresses. leads are the services that the port's routes lead to.
func (p *Policies) HTTPFilters(w *model.Waypoint, s *model.Service, port *model.Port, leads ...Lead) ([]*hcmv3.HttpFilter, error) {
	var out []*hcmv3.HttpFilter
	for _, f := range p.filters(w, s, port, leads, false) {
		config, err := pack(&httprbacv3.RBAC{Rules: f.rules, ShadowRules: f.shadow, ShadowRulesStatPrefix: f.prefix()})
		if err != nil {
			return nil, err
		}
		out = append(out, &hcmv3.HttpFilter{Name: HTTPFilterName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}})
	}
	return out, nil
}

// NetworkFilters are the filters before connections, as HTTPFilters are before
// requests. Where the port's protocol is not declared, or port is nil, requests may
// still come from who had not begun when the detection ended: rules that deny
// requests deny such connections. Other proxies than ours take some requests for
// none; there those rules deny every connection to such ports.
func (p *Policies) NetworkFilters(w *model.Waypoint, s *model.Service, port *model.Port, leads ...Lead) ([]*listenerv3.Filter, error) {
	var out []*listenerv3.Filter
	for _, f := range p.filters(w, s, port, leads, true) {
		if f.late() && len(out) == 0 {
			config, err := pack(waited())
			if err != nil {
				return nil, err
			}
			out = append(out, &listenerv3.Filter{Name: stateFilterName, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}})
		}
		config, err := pack(&netrbacv3.RBAC{Rules: f.rules, ShadowRules: f.shadow, ShadowRulesStatPrefix: f.prefix(), StatPrefix: statPrefix})
		if err != nil {
			return nil, err
		}
		out = append(out, &listenerv3.Filter{Name: NetworkFilterName, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}})
	}
	return out, nil
}

func pack(m proto.Message) (*anypb.Any, error) {
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return out, nil
}

// filterSpec is one RBAC filter of either kind. A nil rules enforces nothing.
type filterSpec struct {
	rules, shadow *rbacv3.RBAC
}

func (f *filterSpec) prefix() string {
	if f.shadow != nil && f.shadow.Action == rbacv3.RBAC_DENY {
		return shadowDenyPrefix
	}
	return shadowAllowPrefix
}

// put adds a policy to the enforced rules or to the shadow ones. A nil policy
// only makes the rules exist: ALLOW rules that match nothing deny everything.
func (f *filterSpec) put(action rbacv3.RBAC_Action, dryRun bool, name string, policy *rbacv3.Policy) {
	rules := &f.rules
	if dryRun {
		rules = &f.shadow
	}
	if *rules == nil {
		*rules = &rbacv3.RBAC{Action: action}
	}
	if policy == nil {
		return
	}
	if (*rules).Policies == nil {
		(*rules).Policies = map[string]*rbacv3.Policy{}
	}
	(*rules).Policies[name] = policy
}

func (f *filterSpec) empty() bool { return f.rules == nil && f.shadow == nil }

func (p *Policies) filters(w *model.Waypoint, s *model.Service, port *model.Port, leads []Lead, tcp bool) []*filterSpec {
	deny, allow := &filterSpec{}, &filterSpec{}
	undeclared := tcp && (port == nil || port.Protocol == model.Unsupported)
	kind := chain{tcp: tcp, widened: undeclared && p.layer4 != nil}
	for _, one := range p.at(w, s) {
		p.place(one, kind, deny, allow, undeclared && p.layer4 == nil)
	}
	all := []*filterSpec{deny}
	if p.layer4 != nil {
		all = append(all, p.layer4.place(p.m, w, s, port, leads, deny)...)
	}
	all = append(all, allow)
	var out []*filterSpec
	for _, f := range all {
		if !f.empty() {
			out = append(out, f)
		}
	}
	return out
}

// place puts one policy's rules where they belong. Where connections were looked at,
// what denies requests denies those that had not begun in time.
func (p *Policies) place(one *policy, kind chain, deny, allow *filterSpec, detected bool) {
	name := func(rule int) string {
		return fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", one.namespace, one.name, rule)
	}
	if one.refused != nil {
		deny.put(rbacv3.RBAC_DENY, false, name(0), always())
		return
	}
	action, to := rbacv3.RBAC_ALLOW, allow
	switch one.object.Spec.Action {
	case securityapi.AuthorizationPolicy_DENY, securityapi.AuthorizationPolicy_CUSTOM:
		// Nobody is asked what CUSTOM asks for, so it is as if the answer was no.
		action, to = rbacv3.RBAC_DENY, deny
	case securityapi.AuthorizationPolicy_AUDIT:
		return
	}
	dryRun := one.object.Annotations[annotationDryRun] == "true"
	if action == rbacv3.RBAC_ALLOW {
		to.put(action, dryRun, "", nil)
	}
	if len(one.object.Spec.Rules) == 0 && action == rbacv3.RBAC_ALLOW {
		to.put(action, dryRun, name(0), never())
	}
	c := converter{m: p.m, namespace: one.namespace, deny: action == rbacv3.RBAC_DENY, chain: kind}
	for i, r := range one.object.Spec.Rules {
		converted := c.valid(r)
		if converted != nil {
			to.put(action, dryRun, name(i), converted)
		}
		if !detected || !c.deny {
			continue
		}
		any := c
		any.chain.widened = true
		if wide := any.valid(r); !proto.Equal(wide, converted) {
			late(wide, p.m.DetectionTimeout())
			to.put(action, dryRun, name(i)+lateSuffix, wide)
		}
	}
}

// always matches every connection and request.
func always() *rbacv3.Policy {
	return &rbacv3.Policy{
		Permissions: []*rbacv3.Permission{allRules(nil)},
		Principals:  []*rbacv3.Principal{allIDs(nil)},
	}
}

// never is how Istio writes a policy without rules.
func never() *rbacv3.Policy {
	p := always()
	p.Permissions = []*rbacv3.Permission{notRule(&rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}})}
	p.Principals = []*rbacv3.Principal{notID(anyone())}
	return p
}
