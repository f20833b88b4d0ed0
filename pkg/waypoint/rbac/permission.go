package rbac

import (
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

func permission(m *rbacconfigv3.Permission) (predicate, error) {
	switch p := m.GetRule().(type) {
	case *rbacconfigv3.Permission_Any:
		return always(p.Any), nil
	case *rbacconfigv3.Permission_AndRules:
		return several(p.AndRules.GetRules(), permission, allHold)
	case *rbacconfigv3.Permission_OrRules:
		return several(p.OrRules.GetRules(), permission, anyHolds)
	case *rbacconfigv3.Permission_NotRule:
		return not(p.NotRule, permission)
	case *rbacconfigv3.Permission_Header:
		return header(p.Header)
	case *rbacconfigv3.Permission_UrlPath:
		return urlPath(p.UrlPath)
	case *rbacconfigv3.Permission_UriTemplate:
		match, err := route.NewTemplate(p.UriTemplate)
		if err != nil {
			return nil, fmt.Errorf("uri_template: %w", err)
		}
		return onPath(match.Match), nil
	case *rbacconfigv3.Permission_DestinationIp:
		return address(p.DestinationIp, func(i *streaminfo.Info) netip.Addr { return i.Local.Addr() })
	case *rbacconfigv3.Permission_DestinationPort:
		return func(i *streaminfo.Info) bool { return uint32(i.Local.Port()) == p.DestinationPort }, nil
	case *rbacconfigv3.Permission_DestinationPortRange:
		from, to := p.DestinationPortRange.GetStart(), p.DestinationPortRange.GetEnd()
		return func(i *streaminfo.Info) bool { return int32(i.Local.Port()) >= from && int32(i.Local.Port()) < to }, nil
	case *rbacconfigv3.Permission_RequestedServerName:
		s, err := matcher.NewString(p.RequestedServerName)
		if err != nil {
			return nil, fmt.Errorf("requested_server_name: %w", err)
		}
		return func(i *streaminfo.Info) bool { return s.Match(i.ServerName) }, nil
	case *rbacconfigv3.Permission_Metadata:
		return metadata(p.Metadata) //nolint:staticcheck // still sent
	}
	return nil, fmt.Errorf("rule %T is not supported", m.GetRule())
}

func always(v bool) predicate { return func(*streaminfo.Info) bool { return v } }

// several compiles a list and joins it.
func several[M any](list []M, one func(M) (predicate, error), join func([]predicate, *streaminfo.Info) bool) (predicate, error) {
	parts := make([]predicate, 0, len(list))
	for i, m := range list {
		p, err := one(m)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		parts = append(parts, p)
	}
	return func(i *streaminfo.Info) bool { return join(parts, i) }, nil
}

func not[M any](m M, one func(M) (predicate, error)) (predicate, error) {
	p, err := one(m)
	if err != nil {
		return nil, fmt.Errorf("not: %w", err)
	}
	return func(i *streaminfo.Info) bool { return !p(i) }, nil
}

// header matches a field of a request; a connection has none.
func header(m *routev3.HeaderMatcher) (predicate, error) {
	h, err := matcher.NewHeader(m)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return func(i *streaminfo.Info) bool { return i.Request != nil && h.Request(i.Request) }, nil
}

func urlPath(m *matcherv3.PathMatcher) (predicate, error) {
	s, err := matcher.NewString(m.GetPath())
	if err != nil {
		return nil, fmt.Errorf("url_path: %w", err)
	}
	return onPath(s.Match), nil
}

// onPath matches the path without its query and fragment.
func onPath(match func(string) bool) predicate {
	return func(i *streaminfo.Info) bool {
		if i.Request == nil {
			return false
		}
		path := i.Request.Path
		if at := strings.IndexAny(path, "?#"); at >= 0 {
			path = path[:at]
		}
		return match(path)
	}
}

func address(r *corev3.CidrRange, of func(*streaminfo.Info) netip.Addr) (predicate, error) {
	list, err := matcher.Prefixes([]*corev3.CidrRange{r})
	if err != nil {
		return nil, err
	}
	return func(i *streaminfo.Info) bool { return matcher.Contains(list, of(i)) }, nil
}

func metadata(m *matcherv3.MetadataMatcher) (predicate, error) {
	c, err := matcher.NewMetadata(m)
	if err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return func(i *streaminfo.Info) bool { return c.Match(i.Dynamic) }, nil
}
