package routing

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// owner is the object that rules come from.
type owner struct {
	object status.Object
	// title is its host or name in operations' names.
	title    string
	metadata *corev3.Metadata
}

// rule is one rule of an object as far as it does not depend on the service and
// port at which it is used. Everything it points to is shared by the routes made
// of it and is never changed.
type rule struct {
	owner *owner
	name  string
	// index is its place in the object.
	index int
	// matches are alternatives, at least one.
	matches []match

	// Of redirect, direct and action one is set. The action has no cluster yet.
	redirect *redirect
	direct   *routev3.DirectResponseAction
	action   *routev3.RouteAction

	destinations []destination
	mirrors      []mirror
	headers      headers
	filters      map[string]*anypb.Any
	affinity     *affinity
	// parts take the place of all that is above but the matches, if there are any.
	parts []part
}

// match is one alternative of a rule.
type match struct {
	envoy *routev3.RouteMatch
	// port is the service port it is meant for, zero for any.
	port uint32
	// name follows the rule's in the route's name; stats is the prefix of the route's
	// own statistics.
	name, stats string
}

// all tells whether every request matches.
func (m match) all() bool {
	e := m.envoy
	return e.GetPrefix() == "/" && len(e.Headers) == 0 && len(e.QueryParameters) == 0 && len(e.FilterState) == 0 && e.Grpc == nil
}

// destination is where requests go.
type destination struct {
	host string
	// service is the host's, nil where there is none.
	service *model.Service
	// port is zero for the service's only port or the one that was called.
	port    uint32
	subset  string
	weight  uint32
	headers headers
	// invalid destinations are answered 500.
	invalid bool
}

// mirror is a destination that gets copies, of the share's requests.
type mirror struct {
	destination
	share *corev3.RuntimeFractionalPercent
}

// redirect answers with another place.
type redirect struct {
	action *routev3.RedirectAction
	// servicePort: the port in the answer is the one that was called, unless it is
	// the scheme's own.
	servicePort bool
}

// headers are changes of headers.
type headers struct {
	requestAdd, responseAdd       []*corev3.HeaderValueOption
	requestRemove, responseRemove []string
	// host replaces the authority, if set.
	host string
}

func (h headers) empty() bool {
	return len(h.requestAdd) == 0 && len(h.responseAdd) == 0 && len(h.requestRemove) == 0 && len(h.responseRemove) == 0 && h.host == ""
}

// with is h and then o.
func (h headers) with(o headers) headers {
	switch {
	case o.empty():
		return h
	case h.empty():
		return o
	}
	join := func(a, b []*corev3.HeaderValueOption) []*corev3.HeaderValueOption {
		return append(append([]*corev3.HeaderValueOption(nil), a...), b...)
	}
	host := h.host
	if o.host != "" {
		host = o.host
	}
	return headers{
		requestAdd: join(h.requestAdd, o.requestAdd), responseAdd: join(h.responseAdd, o.responseAdd),
		requestRemove:  append(append([]string(nil), h.requestRemove...), o.requestRemove...),
		responseRemove: append(append([]string(nil), h.responseRemove...), o.responseRemove...), host: host,
	}
}
