package route

import (
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/format"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/rules"
)

func (c *compiler) route(m *routev3.Route, h *hostShell) (*Route, error) {
	where := fmt.Sprintf("virtual host %q: route %q", h.name, m.GetName())
	if name := unknownField(m.GetMatch().ProtoReflect()); name != "" {
		return nil, fmt.Errorf("match: %s has a field that is not known here; the route would match too much", name)
	}
	c.unknown(where, m)
	r := &Route{Name: m.GetName(), host: h, Tracing: m.GetTracing(), Metadata: metadataOf(m.GetMetadata())}
	if m.GetDecorator() != nil {
		r.Decorator = m.GetDecorator().GetOperation()
	}
	if r.BufferLimit = bufferLimit(m); r.BufferLimit == nil {
		r.BufferLimit = h.limit
	}
	if len(m.GetRouteSpecifiers()) > 0 {
		return nil, errors.New("route_specifiers are not supported")
	}
	var err error
	if r.match, err = newMatch(m.GetMatch()); err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	if r.scope, err = c.scope(m, where); err != nil {
		return nil, err
	}
	switch a := m.GetAction().(type) {
	case *routev3.Route_Route:
		if r.Forward, err = c.forward(a.Route, r, where); err != nil {
			return nil, fmt.Errorf("route: %w", err)
		}
	case *routev3.Route_Redirect:
		if r.Redirect, err = newRedirect(a.Redirect); err != nil {
			return nil, fmt.Errorf("redirect: %w", err)
		}
	case *routev3.Route_DirectResponse:
		if r.Direct, err = newDirect(a.DirectResponse, h.common.maxBody); err != nil {
			return nil, fmt.Errorf("direct_response: %w", err)
		}
	case nil:
		return nil, errors.New("it has no action: set route, redirect or direct_response")
	default:
		return nil, fmt.Errorf("actions of kind %T are not supported", a)
	}
	if err := rules.Check(m); err != nil {
		return nil, fmt.Errorf("the API's own rules: %w", err)
	}
	r.warnings = c.take()
	return r, nil
}

func (c *compiler) forward(a *routev3.RouteAction, r *Route, where string) (*Forward, error) {
	f := &Forward{
		NotFoundStatus: 503, HighPriority: a.GetPriority() == corev3.RoutingPriority_HIGH,
		Timeout: 15 * time.Second, AppendForwardedHost: a.GetAppendXForwardedHost(),
		MetadataMatch: lbMetadata(a.GetMetadataMatch(), nil),
	}
	if a.GetClusterNotFoundResponseCode() == routev3.RouteAction_NOT_FOUND {
		f.NotFoundStatus = 404
	}
	if a.GetClusterNotFoundResponseCode() == routev3.RouteAction_INTERNAL_SERVER_ERROR {
		f.NotFoundStatus = 500
	}
	if err := refuse(a); err != nil {
		return nil, err
	}
	c.ignored(a, where)
	if err := c.legacyCORS(a.GetCors(), &r.scope, where); err != nil { //nolint:staticcheck // old configurations have it
		return nil, err
	}
	if err := f.timeouts(a); err != nil {
		return nil, err
	}
	if err := f.clusters(c, a, where); err != nil {
		return nil, err
	}
	if err := f.rewrites(a, r); err != nil {
		return nil, err
	}
	retry := a.GetRetryPolicy()
	if retry == nil {
		retry = r.host.retry
	}
	var err error
	if f.Retry, err = newRetry(retry); err != nil {
		return nil, err
	}
	if f.Mirrors, err = newMirrors(a.GetRequestMirrorPolicies()); err != nil {
		return nil, err
	}
	if len(f.Mirrors) == 0 {
		f.Mirrors = r.host.mirrors
	}
	if f.hash, err = newHashPolicies(a.GetHashPolicy()); err != nil {
		return nil, err
	}
	return f, f.upgrades(a)
}

// refuse names what a route asks for that cannot be done and must not be left out.
func refuse(a *routev3.RouteAction) error {
	switch {
	case a.GetInternalRedirectPolicy() != nil || a.GetInternalRedirectAction() != routev3.RouteAction_PASS_THROUGH_INTERNAL_REDIRECT: //nolint:staticcheck // old configurations have it
		return errors.New("internal_redirect_policy is not supported: redirects go to the client")
	case a.GetRetryPolicyTypedConfig() != nil:
		return errors.New("retry_policy_typed_config is not supported: use retry_policy")
	case a.GetPathRewrite() != "":
		return errors.New("path_rewrite is not supported: use prefix_rewrite, regex_rewrite or path_rewrite_policy")
	case a.GetHostRewrite() != "":
		return errors.New("host_rewrite is not supported: use host_rewrite_literal")
	}
	return nil
}

func (c *compiler) ignored(a *routev3.RouteAction, where string) {
	if len(a.GetRateLimits()) > 0 {
		c.warn("%s: rate_limits have no effect", where)
	}
	if a.GetHedgePolicy() != nil {
		c.warn("%s: hedge_policy has no effect", where)
	}
	if a.GetEarlyDataPolicy() != nil {
		c.warn("%s: early_data_policy has no effect", where)
	}
}

func (f *Forward) timeouts(a *routev3.RouteAction) error {
	if d := a.GetTimeout(); d != nil {
		f.Timeout = d.AsDuration()
	}
	f.TimeoutText = strconv.FormatInt(f.Timeout.Milliseconds(), 10)
	s := a.GetMaxStreamDuration()
	for _, t := range []struct {
		into  **time.Duration
		from  *durationpb.Duration
		field string
	}{
		{new(*time.Duration), a.GetTimeout(), "timeout"},
		{&f.IdleTimeout, a.GetIdleTimeout(), "idle_timeout"},
		{&f.FlushTimeout, a.GetFlushTimeout(), "flush_timeout"},
		{&f.MaxGRPCTimeout, a.GetMaxGrpcTimeout(), "max_grpc_timeout"},   //nolint:staticcheck // istiod sends it
		{&f.GRPCOffset, a.GetGrpcTimeoutOffset(), "grpc_timeout_offset"}, //nolint:staticcheck // old configurations have it
		{&f.MaxDuration, s.GetMaxStreamDuration(), "max_stream_duration.max_stream_duration"},
		{&f.GRPCHeaderMax, s.GetGrpcTimeoutHeaderMax(), "max_stream_duration.grpc_timeout_header_max"},
		{&f.GRPCHeaderShift, s.GetGrpcTimeoutHeaderOffset(), "max_stream_duration.grpc_timeout_header_offset"},
	} {
		if t.from == nil {
			continue
		}
		if err := t.from.CheckValid(); err != nil || t.from.AsDuration() < 0 {
			return fmt.Errorf("%s: %v is not a duration of zero or more", t.field, t.from)
		}
		d := t.from.AsDuration()
		*t.into = &d
	}
	if f.ByDuration = s != nil; f.ByDuration {
		f.Timeout, f.MaxGRPCTimeout, f.GRPCOffset = 0, nil, nil
	}
	return nil
}

func (f *Forward) clusters(c *compiler, a *routev3.RouteAction, where string) (err error) {
	switch s := a.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		if f.cluster = s.Cluster; f.cluster == "" {
			return errors.New("cluster is empty")
		}
	case *routev3.RouteAction_ClusterHeader:
		if f.clusterHeader = strings.ToLower(s.ClusterHeader); f.clusterHeader == "" {
			return errors.New("cluster_header is empty")
		}
	case *routev3.RouteAction_WeightedClusters:
		if f.weighted, err = c.weighted(s.WeightedClusters, f, where); err != nil {
			return fmt.Errorf("weighted_clusters: %w", err)
		}
	case nil:
		return errors.New("it names no cluster")
	default:
		return fmt.Errorf("cluster specifiers of kind %T are not supported", s)
	}
	return nil
}

func (f *Forward) rewrites(a *routev3.RouteAction, r *Route) (err error) {
	count := 0
	if f.prefixRewrite = a.GetPrefixRewrite(); f.prefixRewrite != "" {
		count++
	}
	if m := a.GetRegexRewrite(); m != nil {
		count++
		if f.regexRewrite, err = matcher.NewRewrite(m); err != nil {
			return fmt.Errorf("regex_rewrite: %w", err)
		}
	}
	if p := a.GetPathRewritePolicy(); p != nil {
		count++
		if f.templateRewrite, err = newTemplateRewrite(p, r.match.re); err != nil {
			return fmt.Errorf("path_rewrite_policy: %w", err)
		}
	}
	if count > 1 {
		return errors.New("only one of prefix_rewrite, regex_rewrite and path_rewrite_policy may be set")
	}
	switch h := a.GetHostRewriteSpecifier().(type) {
	case nil:
	case *routev3.RouteAction_HostRewriteLiteral:
		f.hostLiteral = h.HostRewriteLiteral
	case *routev3.RouteAction_AutoHostRewrite:
		f.AutoHostRewrite = h.AutoHostRewrite.GetValue()
	case *routev3.RouteAction_HostRewriteHeader:
		f.hostHeader = strings.ToLower(h.HostRewriteHeader)
	case *routev3.RouteAction_HostRewritePathRegex:
		if f.hostRegex, err = matcher.NewRewrite(h.HostRewritePathRegex); err != nil {
			return fmt.Errorf("host_rewrite_path_regex: %w", err)
		}
	default:
		return fmt.Errorf("host rewrites of kind %T are not supported", h)
	}
	return nil
}

func (f *Forward) upgrades(a *routev3.RouteAction) error {
	for i, u := range a.GetUpgradeConfigs() {
		if f.Upgrades == nil {
			f.Upgrades = map[string]bool{}
		}
		name := strings.ToLower(u.GetUpgradeType())
		if _, ok := f.Upgrades[name]; ok {
			return fmt.Errorf("upgrade_configs[%d]: %q is there twice", i, name)
		}
		f.Upgrades[name] = u.GetEnabled() == nil || u.GetEnabled().GetValue()
		if u.GetConnectConfig() != nil {
			if name != "connect" && name != "connect-udp" {
				return fmt.Errorf("upgrade_configs[%d]: connect_config is for CONNECT, not for %q", i, name)
			}
			f.ConnectTerminates = true
		}
	}
	return nil
}

// lbMetadata is what endpoints must have, over what a parent asks for.
func lbMetadata(m *corev3.Metadata, parent map[string]any) map[string]any {
	own, ok := m.GetFilterMetadata()["envoy.lb"]
	if !ok {
		return parent
	}
	out := maps.Clone(parent)
	if out == nil {
		return own.AsMap()
	}
	maps.Copy(out, own.AsMap())
	return out
}

func newMirrors(list []*routev3.RouteAction_RequestMirrorPolicy) ([]*Mirror, error) {
	var out []*Mirror
	for i, m := range list {
		if (m.GetCluster() == "") == (m.GetClusterHeader() == "") {
			return nil, fmt.Errorf("request_mirror_policies[%d]: set one of cluster and cluster_header", i)
		}
		one := &Mirror{
			cluster: m.GetCluster(), clusterHeader: strings.ToLower(m.GetClusterHeader()),
			KeepHost: m.GetDisableShadowHostSuffixAppend(), HostLiteral: m.GetHostRewriteLiteral(),
		}
		if f := m.GetRuntimeFraction(); f != nil {
			one.fraction = newFraction(f.GetDefaultValue())
		}
		var add []*corev3.HeaderValueOption
		var remove []string
		for n, h := range m.GetRequestHeadersMutations() {
			switch {
			case h.GetRemove() != "":
				remove = append(remove, h.GetRemove())
			case h.GetAppend() != nil:
				add = append(add, h.GetAppend())
			default:
				return nil, fmt.Errorf("request_mirror_policies[%d].request_headers_mutations[%d]: only remove and append are supported", i, n)
			}
		}
		var err error
		if one.mutations, err = newMutations(add, remove, "request_headers_mutations"); err != nil {
			return nil, fmt.Errorf("request_mirror_policies[%d]: %w", i, err)
		}
		out = append(out, one)
	}
	return out, nil
}

func newDirect(a *routev3.DirectResponseAction, maxBody int) (*Direct, error) {
	d := &Direct{Status: int(a.GetStatus())}
	if d.Status < 200 || d.Status > 599 {
		return nil, fmt.Errorf("status %d is not between 200 and 599", d.Status)
	}
	switch b := a.GetBody().GetSpecifier().(type) {
	case nil:
	case *corev3.DataSource_InlineString:
		d.body = b.InlineString
	case *corev3.DataSource_InlineBytes:
		d.body = string(b.InlineBytes)
	default:
		return nil, fmt.Errorf("body of kind %T is not supported: use inline_string or inline_bytes", b)
	}
	if len(d.body) > maxBody {
		return nil, fmt.Errorf("body has %d bytes; max_direct_response_body_size_bytes allows %d", len(d.body), maxBody)
	}
	return d, d.setFormat(a.GetBodyFormat())
}

func (d *Direct) setFormat(f *corev3.SubstitutionFormatString) (err error) {
	d.ContentType = f.GetContentType()
	switch p := f.GetFormat().(type) {
	case nil:
	case *corev3.SubstitutionFormatString_JsonFormat:
		if d.ContentType == "" {
			d.ContentType = "application/json"
		}
		d.json, err = format.CompileJSON(p.JsonFormat, f.GetOmitEmptyValues())
	case *corev3.SubstitutionFormatString_TextFormat: //nolint:staticcheck // old configurations have it
		d.format, err = format.Compile(p.TextFormat) //nolint:staticcheck // old configurations have it
	case *corev3.SubstitutionFormatString_TextFormatSource:
		d.format, err = format.Compile(p.TextFormatSource.GetInlineString())
	}
	if err != nil {
		return fmt.Errorf("body_format: %w", err)
	}
	return nil
}
