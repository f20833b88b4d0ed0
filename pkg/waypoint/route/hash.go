package route

import (
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

type hashKind uint8

const (
	hashHeader hashKind = iota
	hashCookie
	hashSource
	hashQuery
	hashState
)

// hashPolicy is a HashPolicy.
type hashPolicy struct {
	kind     hashKind
	terminal bool
	// name is of the field, cookie, parameter or filter state.
	name    string
	rewrite *matcher.Rewrite
	// generate makes a cookie for a client without one; suffix is what stands behind
	// its value.
	generate bool
	suffix   string
}

func newHashPolicies(list []*routev3.RouteAction_HashPolicy) ([]hashPolicy, error) {
	var out []hashPolicy
	for i, m := range list {
		p := hashPolicy{terminal: m.GetTerminal()}
		switch s := m.GetPolicySpecifier().(type) {
		case *routev3.RouteAction_HashPolicy_Header_:
			p.kind, p.name = hashHeader, strings.ToLower(s.Header.GetHeaderName())
			if w := s.Header.GetRegexRewrite(); w != nil {
				var err error
				if p.rewrite, err = matcher.NewRewrite(w); err != nil {
					return nil, fmt.Errorf("hash_policy[%d].header.regex_rewrite: %w", i, err)
				}
			}
		case *routev3.RouteAction_HashPolicy_Cookie_:
			p.kind, p.name = hashCookie, s.Cookie.GetName()
			p.generate, p.suffix = s.Cookie.GetTtl() != nil, cookieSuffix(s.Cookie)
		case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
			if !s.ConnectionProperties.GetSourceIp() {
				continue
			}
			p.kind = hashSource
		case *routev3.RouteAction_HashPolicy_QueryParameter_:
			p.kind, p.name = hashQuery, s.QueryParameter.GetName()
		case *routev3.RouteAction_HashPolicy_FilterState_:
			p.kind, p.name = hashState, s.FilterState.GetKey()
		case nil:
			return nil, fmt.Errorf("hash_policy[%d]: %w", i, errors.New("it says nothing to hash"))
		default:
			return nil, fmt.Errorf("hash_policy[%d]: kind %T is not supported", i, s)
		}
		out = append(out, p)
	}
	return out, nil
}

// cookieSuffix is as Envoy's makeSetCookieValue writes it.
func cookieSuffix(c *routev3.RouteAction_HashPolicy_Cookie) string {
	s := `"`
	if ttl := c.GetTtl().GetSeconds(); ttl != 0 {
		s += "; Max-Age=" + strconv.FormatInt(ttl, 10)
	}
	if c.GetPath() != "" {
		s += "; Path=" + c.GetPath()
	}
	for _, a := range c.GetAttributes() {
		s += "; " + a.GetName()
		if a.GetValue() != "" {
			s += "=" + a.GetValue()
		}
	}
	return s + "; HttpOnly"
}

// Hashes reports whether the route has hash policies.
func (f *Forward) Hashes() bool { return len(f.hash) > 0 }

// Hash is what consistent hashing chooses a host by, and whether the request gives
// one. setCookie, unless it is "", is for the response's set-cookie: the client had
// no such cookie. The value is Envoy's, so that a mix of both chooses alike.
func (f *Forward) Hash(in *Input) (value uint64, ok bool, setCookie string) {
	for i := range f.hash {
		p := &f.hash[i]
		v, found, cookie := p.hash(in)
		if cookie != "" {
			setCookie = cookie
		}
		if found {
			if ok {
				v ^= bits.RotateLeft64(value, 1)
			}
			value, ok = v, true
		}
		if ok && p.terminal {
			break
		}
	}
	return value, ok, setCookie
}

func (p *hashPolicy) hash(in *Input) (value uint64, ok bool, setCookie string) {
	switch p.kind {
	case hashHeader:
		value, ok = p.header(in.Request)
	case hashCookie:
		v, _ := in.Request.Cookie(p.name)
		if v == "" && p.generate {
			v = p.cookieValue(in)
			setCookie = p.name + `="` + v + p.suffix
		}
		value, ok = xxhash.Sum64String(v), v != ""
	case hashSource:
		if in.Info != nil && in.Info.ClientAddress().IsValid() {
			var buf [64]byte
			value, ok = xxhash.Sum64(in.Info.ClientAddress().Addr().Unmap().AppendTo(buf[:0])), true
		}
	case hashQuery:
		var v string
		if v, ok = message.QueryValue(in.Request.Path, p.name); ok {
			value = xxhash.Sum64String(v)
		}
	case hashState:
		var v string
		if in.Info != nil && in.Info.Connection != nil {
			v, ok = in.Info.FilterState[p.name]
		}
		value = xxhash.Sum64String(v)
	}
	return value, ok, setCookie
}

// cookieValue is the same for all requests of a connection, so that several which
// race get the same cookie.
func (p *hashPolicy) cookieValue(in *Input) string {
	var buf [128]byte
	b := buf[:0]
	if in.Info != nil && in.Info.Connection != nil {
		b = in.Info.Remote.AppendTo(b)
		b = in.Info.Local.AppendTo(b)
	}
	return fmt.Sprintf("%016x", xxhash.Sum64(b))
}

// header hashes the lines of a field, sorted, each with the last one's hash as seed.
func (p *hashPolicy) header(r *message.Request) (uint64, bool) {
	if message.Combined(p.name) || r.Fields.Count(p.name) <= 1 {
		v, ok := r.Joined(p.name)
		if ok && p.rewrite != nil {
			v = p.rewrite.Replace(v)
		}
		return xxhash.Sum64String(v), ok
	}
	var values []string
	for i := range r.Fields {
		if r.Fields[i].Name == p.name {
			v := r.Fields[i].Value
			if p.rewrite != nil {
				v = p.rewrite.Replace(v)
			}
			values = append(values, v)
		}
	}
	slices.Sort(values)
	var seed uint64
	for _, v := range values {
		d := xxhash.NewWithSeed(seed)
		_, _ = d.WriteString(v)
		seed = d.Sum64()
	}
	return seed, true
}
