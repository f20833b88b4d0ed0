package rbac

import (
	"fmt"
	"net/netip"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

func principal(m *rbacconfigv3.Principal) (predicate, error) {
	switch p := m.GetIdentifier().(type) {
	case *rbacconfigv3.Principal_Any:
		return always(p.Any), nil
	case *rbacconfigv3.Principal_AndIds:
		return several(p.AndIds.GetIds(), principal, allHold)
	case *rbacconfigv3.Principal_OrIds:
		return several(p.OrIds.GetIds(), principal, anyHolds)
	case *rbacconfigv3.Principal_NotId:
		return not(p.NotId, principal)
	case *rbacconfigv3.Principal_Header:
		return header(p.Header)
	case *rbacconfigv3.Principal_UrlPath:
		return urlPath(p.UrlPath)
	case *rbacconfigv3.Principal_Metadata:
		return metadata(p.Metadata) //nolint:staticcheck // still sent
	case *rbacconfigv3.Principal_FilterState:
		f, err := matcher.NewFilterState(p.FilterState)
		if err != nil {
			return nil, fmt.Errorf("filter_state: %w", err)
		}
		return func(i *streaminfo.Info) bool { return f.Match(i.FilterState) }, nil
	case *rbacconfigv3.Principal_Authenticated_:
		return authenticated(p.Authenticated)
	case *rbacconfigv3.Principal_DirectRemoteIp:
		return address(p.DirectRemoteIp, func(i *streaminfo.Info) netip.Addr { return i.DirectRemote.Addr() })
	case *rbacconfigv3.Principal_RemoteIp:
		return address(p.RemoteIp, func(i *streaminfo.Info) netip.Addr { return i.ClientAddress().Addr() })
	case *rbacconfigv3.Principal_SourceIp: // deprecated, as remote_ip
		return address(p.SourceIp, func(i *streaminfo.Info) netip.Addr { return i.Remote.Addr() }) //nolint:staticcheck // as above
	}
	return nil, fmt.Errorf("identifier %T is not supported", m.GetIdentifier())
}

// authenticated matches the certificate of a connection that is TLS itself; one
// without a name matches any certificate.
func authenticated(a *rbacconfigv3.Principal_Authenticated) (predicate, error) {
	if a.GetPrincipalName() == nil {
		return func(i *streaminfo.Info) bool { return i.TLS != nil && len(i.TLS.PeerCertificates) > 0 }, nil
	}
	s, err := matcher.NewString(a.GetPrincipalName())
	if err != nil {
		return nil, fmt.Errorf("authenticated.principal_name: %w", err)
	}
	return func(i *streaminfo.Info) bool {
		if i.TLS == nil || len(i.TLS.PeerCertificates) == 0 {
			return false
		}
		cert := i.TLS.PeerCertificates[0]
		for _, u := range cert.URIs {
			if s.Match(u.String()) {
				return true
			}
		}
		for _, n := range cert.DNSNames {
			if s.Match(n) {
				return true
			}
		}
		return len(cert.URIs) == 0 && len(cert.DNSNames) == 0 && s.Match(cert.Subject.String())
	}, nil
}
