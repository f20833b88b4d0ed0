package route

import (
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/rules"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// host is a compiled virtual host.
type host struct {
	*hostShell
	index *index
}

// hostShell is a virtual host without its routes; routes point to it.
type hostShell struct {
	scope
	common                                *common
	name                                  string
	attemptsInRequest, attemptsInResponse bool
	retry                                 *routev3.RetryPolicy
	limit                                 *uint64
	mirrors                               []*Mirror
	// requireTLS is the redirect for requests without TLS, or nil.
	requireTLS *Route
	domains    []string
	// wire is what it was compiled of, if that is kept.
	wire     []byte
	warnings []string
}

// without is a shallow copy of m that lacks a field.
func without[M proto.Message](m M, field protoreflect.Name) M {
	from := m.ProtoReflect()
	to := from.New()
	from.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Name() != field {
			to.Set(fd, v)
		}
		return true
	})
	to.SetUnknown(from.GetUnknown())
	return to.Interface().(M) //nolint:forcetypeassert // m's own type
}

// compiler collects what one compilation has to say.
type compiler struct {
	options  Options
	warnings []string
	// unfamiliar is the first part with a field that is not known here, or nil.
	unfamiliar error
}

func (c *compiler) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

// take returns the warnings since the last call.
func (c *compiler) take() []string {
	w := c.warnings
	c.warnings = nil
	return w
}

// common compiles a configuration without its virtual hosts.
func (c *compiler) common(rc *routev3.RouteConfiguration) (*common, error) {
	if err := rules.Check(rc); err != nil {
		return nil, fmt.Errorf("the API's own rules: %w", err)
	}
	c.unknown("route configuration", rc)
	switch {
	case rc.GetVhds() != nil:
		return nil, errors.New("vhds is not supported: send virtual_hosts in the configuration")
	case len(rc.GetClusterSpecifierPlugins()) > 0:
		return nil, errors.New("cluster_specifier_plugins are not supported")
	case rc.GetVhostHeader() != "":
		return nil, errors.New("vhost_header is not supported")
	case len(rc.GetRouteSpecifiers()) > 0:
		return nil, errors.New("route_specifiers are not supported")
	}
	out := &common{
		name: rc.GetName(), ignorePort: rc.GetIgnorePortInHostMatching(), options: c.options, maxBody: 4096,
		specificWins: rc.GetMostSpecificHeaderMutationsWins(), ignoreParameters: rc.GetIgnorePathParametersInPathMatching(),
	}
	if m := rc.GetMaxDirectResponseBodySizeBytes(); m != nil {
		out.maxBody = int(m.GetValue())
	}
	var err error
	if out.mirrors, err = newMirrors(rc.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	out.scope, err = c.scope(rc, "route configuration")
	out.warnings = c.take()
	return out, err
}

// scoped is what a configuration, virtual host, route or weighted cluster has.
type scoped interface {
	GetRequestHeadersToAdd() []*corev3.HeaderValueOption
	GetRequestHeadersToRemove() []string
	GetResponseHeadersToAdd() []*corev3.HeaderValueOption
	GetResponseHeadersToRemove() []string
	GetTypedPerFilterConfig() map[string]*anypb.Any
}

func (c *compiler) scope(m scoped, where string) (s scope, err error) {
	if s.request, err = newMutations(m.GetRequestHeadersToAdd(), m.GetRequestHeadersToRemove(), "request_headers"); err != nil {
		return s, err
	}
	if s.response, err = newMutations(m.GetResponseHeadersToAdd(), m.GetResponseHeadersToRemove(), "response_headers"); err != nil {
		return s, err
	}
	for name, cfg := range m.GetTypedPerFilterConfig() {
		if s.filters == nil {
			s.filters = map[string]filterConfig{}
		}
		f, err := c.filter(name, cfg, where)
		if err != nil {
			return s, fmt.Errorf("typed_per_filter_config[%q]: %w", name, err)
		}
		s.filters[name] = f
	}
	return s, nil
}

func (c *compiler) filter(name string, cfg *anypb.Any, where string) (f filterConfig, err error) {
	optional := false
	if wrapped := new(routev3.FilterConfig); cfg.MessageIs(wrapped) {
		if err := cfg.UnmarshalTo(wrapped); err != nil {
			return f, fmt.Errorf("decode: %w", err)
		}
		optional, f.disabled, cfg = wrapped.GetIsOptional(), wrapped.GetDisabled(), wrapped.GetConfig()
		if cfg == nil {
			return f, nil
		}
	}
	if c.options.Filter == nil {
		return f, nil
	}
	if f.config, err = c.options.Filter(name, cfg); err != nil && optional {
		c.warn("%s: typed_per_filter_config[%q] is optional and left out: %v", where, name, err)
		return filterConfig{disabled: f.disabled}, nil
	}
	return f, err
}

// shell compiles a virtual host without its routes.
func (c *compiler) shell(vh *routev3.VirtualHost, all *common) (*hostShell, error) {
	where := fmt.Sprintf("virtual host %q", vh.GetName())
	if err := rules.Check(vh); err != nil {
		return nil, fmt.Errorf("the API's own rules: %w", err)
	}
	c.unknown(where, vh)
	switch {
	case vh.GetMatcher() != nil:
		return nil, errors.New("matcher is not supported: use routes")
	case vh.GetRetryPolicyTypedConfig() != nil:
		return nil, errors.New("retry_policy_typed_config is not supported: use retry_policy")
	case len(vh.GetRouteSpecifiers()) > 0:
		return nil, errors.New("route_specifiers are not supported")
	}
	if len(vh.GetRateLimits()) > 0 {
		c.warn("%s: rate_limits have no effect", where)
	}
	if vh.GetHedgePolicy() != nil {
		c.warn("%s: hedge_policy has no effect", where)
	}
	if len(vh.GetVirtualClusters()) > 0 {
		c.warn("%s: virtual_clusters have no statistics", where)
	}
	if vh.GetIncludeIsTimeoutRetryHeader() {
		c.warn("%s: include_is_timeout_retry_header has no effect", where)
	}
	h := &hostShell{
		common: all, name: vh.GetName(), domains: vh.GetDomains(), retry: vh.GetRetryPolicy(),
		limit: bufferLimit(vh), attemptsInRequest: vh.GetIncludeRequestAttemptCount(), attemptsInResponse: vh.GetIncludeAttemptCountInResponse(),
	}
	var err error
	if h.scope, err = c.scope(vh, where); err != nil {
		return nil, err
	}
	if err := c.legacyCORS(vh.GetCors(), &h.scope, where); err != nil { //nolint:staticcheck // old configurations have it
		return nil, err
	}
	if h.mirrors, err = newMirrors(vh.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	if len(h.mirrors) == 0 {
		h.mirrors = all.mirrors
	}
	if _, err := newRetry(vh.GetRetryPolicy()); err != nil {
		return nil, err
	}
	if vh.GetRequireTls() != routev3.VirtualHost_NONE {
		// No peer counts as internal here, so EXTERNAL_ONLY is ALL.
		h.requireTLS = &Route{host: h, Redirect: &Redirect{Status: 301, scheme: "https", toTLS: true}}
	}
	h.warnings = c.take()
	return h, nil
}

// unknown warns of fields that the API's version here does not have.
func (c *compiler) unknown(where string, m proto.Message) {
	if name := unknownField(m.ProtoReflect()); name != "" {
		if c.unfamiliar == nil {
			c.unfamiliar = fmt.Errorf("%s: %s has fields that are not known here", where, name)
		}
		c.warn("%s: %s has a field that is not known here and has no effect", where, name)
	}
}

// unknownField is the name of a message in m that has an unknown field, or "".
func unknownField(m protoreflect.Message) (found string) {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().Name())
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					found = unknownField(v.Message())
					return found == ""
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := 0; i < v.List().Len() && found == ""; i++ {
				found = unknownField(v.List().Get(i).Message())
			}
		default:
			found = unknownField(v.Message())
		}
		return found == ""
	})
	return found
}

// metadataOf reads filter metadata.
func metadataOf(m *corev3.Metadata) streaminfo.Metadata {
	if len(m.GetFilterMetadata()) == 0 {
		return nil
	}
	out := make(streaminfo.Metadata, len(m.GetFilterMetadata()))
	for name, s := range m.GetFilterMetadata() {
		out[name] = s.AsMap()
	}
	return out
}
