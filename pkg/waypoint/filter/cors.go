package filter

import (
	"fmt"
	"strings"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
)

// cors answers preflights and marks responses as routes allow (Envoy's CORS filter,
// the Fetch standard).
type cors struct{ name string }

// corsPolicy is what a route allows.
type corsPolicy struct {
	origins                          []*matcher.String
	anyOrigin                        bool
	methods, headers, expose, maxAge string
	credentials, privateNetwork      bool
	forwardOthers                    bool // preflights of other origins go upstream
	enabled                          share
}

func newCORS(name string, _ *anypb.Any) (Filter, error) { return &cors{name}, nil }

func routeCORS(config *anypb.Any) (any, error) {
	var c corsv3.CorsPolicy
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	p := &corsPolicy{
		methods: c.GetAllowMethods(), headers: c.GetAllowHeaders(), expose: c.GetExposeHeaders(), maxAge: c.GetMaxAge(),
		credentials: c.GetAllowCredentials().GetValue(), privateNetwork: c.GetAllowPrivateNetworkAccess().GetValue(),
		forwardOthers: true, enabled: runtimeShare(c.GetFilterEnabled()),
	}
	if v := c.GetForwardNotMatchingPreflights(); v != nil {
		p.forwardOthers = v.GetValue()
	}
	for i, m := range c.GetAllowOriginStringMatch() {
		if m.GetExact() == "*" {
			p.anyOrigin = true
			continue
		}
		s, err := matcher.NewString(m)
		if err != nil {
			return nil, fmt.Errorf("allow_origin_string_match[%d]: %w", i, err)
		}
		p.origins = append(p.origins, s)
	}
	return p, nil
}

// allowed is the policy for this request's origin, or nil.
func (f *cors) policy(x *Context) (p *corsPolicy, origin string, matches bool) {
	origin, has := x.Request.Fields.Lookup("origin")
	if !has {
		return nil, "", false
	}
	p, _ = x.Config(f.name).(*corsPolicy)
	if p == nil || !p.enabled.draw(x.Info.Seed>>17) {
		return nil, "", false
	}
	if p.anyOrigin {
		return p, origin, true
	}
	for _, m := range p.origins {
		if m.Match(origin) {
			return p, origin, true
		}
	}
	return p, origin, false
}

// Request implements [Filter]: a preflight of an origin that is allowed ends here.
func (f *cors) Request(x *Context) *Reply {
	p, _, matches := f.policy(x)
	if p == nil || x.Request.Method != "OPTIONS" || x.Request.Fields.Get("access-control-request-method") == "" {
		return nil
	}
	if !matches {
		if p.forwardOthers {
			return nil
		}
		return &Reply{Status: 200, Details: "cors_response"}
	}
	reply := &Reply{Status: 200, Details: "cors_response"}
	add := func(name, value string) {
		if value != "" {
			reply.Fields = append(reply.Fields, message.Field{Name: name, Value: value})
		}
	}
	add("access-control-allow-methods", asked(p.methods, x.Request, "access-control-request-method"))
	add("access-control-allow-headers", asked(p.headers, x.Request, "access-control-request-headers"))
	add("access-control-max-age", p.maxAge)
	if p.privateNetwork && strings.EqualFold(x.Request.Fields.Get("access-control-request-private-network"), "true") {
		add("access-control-allow-private-network", "true")
	}
	return reply
}

// asked is what a policy allows: where that is everything, it is what was asked for, as
// a star is no wildcard for requests with credentials.
func asked(allowed string, r *message.Request, field string) string {
	if v := r.Fields.Get(field); allowed == "*" && v != "" {
		return v
	}
	return allowed
}

// Response implements [ResponseFilter].
func (f *cors) Response(x *Context, r *message.Response) {
	p, origin, matches := f.policy(x)
	if p == nil || !matches {
		return
	}
	r.Fields.Set("access-control-allow-origin", origin)
	if p.credentials {
		r.Fields.Set("access-control-allow-credentials", "true")
	}
	if p.expose != "" {
		r.Fields.Set("access-control-expose-headers", p.expose)
	}
}
