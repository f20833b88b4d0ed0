package cluster

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// sanMatcher matches subject alternative names of one kind, or of all.
type sanMatcher struct {
	kind  tlsv3.SubjectAltNameMatcher_SanType
	value *matcher.String
	// exact and prefix are the pattern's, or "".
	exact, prefix string
}

func (s *secure) matchers(v *tlsv3.CertificateValidationContext) error {
	for i, m := range v.GetMatchTypedSubjectAltNames() {
		if err := only(m, "san_type", "matcher"); err != nil {
			return fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		if m.GetSanType() == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED {
			return fmt.Errorf("match_typed_subject_alt_names[%d]: no san_type", i)
		}
		san, err := sanOf(m.GetMatcher(), m.GetSanType())
		if err != nil {
			return fmt.Errorf("match_typed_subject_alt_names[%d]: %w", i, err)
		}
		s.sans = append(s.sans, san)
	}
	for i, m := range v.GetMatchSubjectAltNames() { //nolint:staticcheck // istiod sends it
		san, err := sanOf(m, tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED)
		if err != nil {
			return fmt.Errorf("match_subject_alt_names[%d]: %w", i, err)
		}
		s.sans = append(s.sans, san)
	}
	return nil
}

func sanOf(m *matcherv3.StringMatcher, kind tlsv3.SubjectAltNameMatcher_SanType) (sanMatcher, error) {
	value, err := matcher.NewString(m)
	if err != nil {
		return sanMatcher{}, err
	}
	if m.GetExact()+m.GetPrefix()+m.GetSuffix()+m.GetContains()+m.GetSafeRegex().GetRegex() == "" {
		return sanMatcher{}, errors.New("an empty pattern")
	}
	return sanMatcher{kind, value, m.GetExact(), m.GetPrefix()}, nil
}

func (m *sanMatcher) match(leaf *x509.Certificate) bool {
	is := func(kind tlsv3.SubjectAltNameMatcher_SanType) bool {
		return m.kind == kind || m.kind == tlsv3.SubjectAltNameMatcher_SAN_TYPE_UNSPECIFIED
	}
	if is(tlsv3.SubjectAltNameMatcher_DNS) {
		for _, name := range leaf.DNSNames {
			if m.value.Match(name) || m.exact != "" && wildcard(name, m.exact) {
				return true
			}
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_URI) {
		for _, u := range leaf.URIs {
			if m.value.Match(u.String()) {
				return true
			}
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_EMAIL) {
		for _, e := range leaf.EmailAddresses {
			if m.value.Match(e) {
				return true
			}
		}
	}
	if is(tlsv3.SubjectAltNameMatcher_IP_ADDRESS) {
		for _, ip := range leaf.IPAddresses {
			if m.value.Match(ip.String()) {
				return true
			}
		}
	}
	return false
}

// wildcard: a certificate's *.example.com is for the names one label below
// (RFC 6125 section 6.4.3).
func wildcard(pattern, name string) bool {
	rest, ok := strings.CutPrefix(pattern, "*.")
	_, below, dotted := strings.Cut(name, ".")
	return ok && dotted && strings.EqualFold(rest, below)
}

func sansOf(leaf *x509.Certificate) string {
	names := append([]string(nil), leaf.DNSNames...)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	return strings.Join(names, ", ")
}
