// Package route compiles Envoy's RouteConfiguration into a table that is never
// changed, and finds routes, clusters, retries and header changes exactly as Envoy
// 1.40 does. Envoy looks at routes one after another; a table finds the same route
// by its index of paths. The waypoint's connection manager and router import it.
package route

import (
	"fmt"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Options are what a table's compilation needs of its surroundings.
type Options struct {
	// Filter compiles a filter's per-route configuration. Nil takes none.
	Filter func(name string, cfg *anypb.Any) (any, error)
}

// Input is a request that a route is looked for.
type Input struct {
	Request *message.Request
	Info    *streaminfo.Info
	// Random is the request's random number: runtime fractions and weights are drawn
	// from it.
	Random uint64
	// Scheme is what x-forwarded-proto says, "http" or "https"; "" is the request's.
	Scheme string
}

func (in *Input) scheme() string {
	if in.Scheme != "" {
		return in.Scheme
	}
	return in.Request.Scheme
}

// Table is a compiled RouteConfiguration.
type Table struct {
	// Name is the configuration's.
	Name string
	// Warnings say what the configuration asks for and does not get.
	Warnings []string
	// Unfamiliar is the first part with a field that is not known here, of those
	// that were not taken over from an older table; or nil.
	Unfamiliar error

	common *common
	exact  map[string]*host
	// suffixes and prefixes are wildcard domains without their asterisk, and the
	// lengths that occur, longest first.
	suffixes, prefixes           map[string]*host
	suffixLengths, prefixLengths []int
	fallback                     *host
	ignorePort                   bool
	hosts                        []*host
}

// common is what all virtual hosts of a table share.
type common struct {
	scope
	name             string
	ignorePort       bool
	specificWins     bool
	ignoreParameters bool
	maxBody          int
	mirrors          []*Mirror
	options          Options
	// wire is what it was compiled of, if that is kept.
	wire     []byte
	warnings []string
}

// scope is what a configuration, a virtual host, a route and a weighted cluster have
// alike: changes of header fields and the filters' configurations.
type scope struct {
	request, response *mutations
	filters           map[string]filterConfig
}

// filterConfig is a filter's per-route configuration.
type filterConfig struct {
	config   any
	disabled bool
}

// Compile compiles a configuration. Errors name virtual host, route and field.
func Compile(rc *routev3.RouteConfiguration, o Options) (*Table, error) {
	c := &compiler{options: o}
	all, err := c.common(without(rc, "virtual_hosts"))
	if err != nil {
		return nil, err
	}
	t := newTable(all)
	for i, vh := range rc.GetVirtualHosts() {
		at := fmt.Sprintf("virtual_hosts[%d] %q", i, vh.GetName())
		h := &host{}
		if h.hostShell, err = c.shell(without(vh, "routes"), all); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		routes := make([]*Route, len(vh.GetRoutes()))
		for i, m := range vh.GetRoutes() {
			if routes[i], err = c.route(m, h.hostShell); err != nil {
				return nil, fmt.Errorf("%s: routes[%d] %q: %w", at, i, m.GetName(), err)
			}
		}
		h.index = newIndex(routes)
		if err := t.add(h); err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
	}
	return t.complete(c), nil
}

func newTable(all *common) *Table {
	return &Table{
		Name: all.name, common: all, ignorePort: all.ignorePort,
		exact: map[string]*host{}, suffixes: map[string]*host{}, prefixes: map[string]*host{},
	}
}

// complete makes what follows from all hosts.
func (t *Table) complete(c *compiler) *Table {
	t.Warnings, t.Unfamiliar = t.warnings(), c.unfamiliar
	t.suffixLengths, t.prefixLengths = lengths(t.suffixes), lengths(t.prefixes)
	return t
}

// warnings are those of all parts, whenever they were compiled.
func (t *Table) warnings() []string {
	out := slices.Clone(t.common.warnings)
	for _, h := range t.hosts {
		out = append(out, h.warnings...)
		for _, r := range h.index.routes {
			out = append(out, r.warnings...)
		}
	}
	return out
}

// add adds a virtual host under its domains.
func (t *Table) add(h *host) error {
	t.hosts = append(t.hosts, h)
	if len(h.domains) == 0 {
		return fmt.Errorf("domains: at least one is needed")
	}
	for i, d := range h.domains {
		d = strings.ToLower(d)
		into, key := t.exact, d
		switch {
		case d == "*":
			if t.fallback != nil {
				return fmt.Errorf("domains[%d]: %q already belongs to virtual host %q", i, d, t.fallback.name)
			}
			t.fallback = h
			continue
		case strings.HasPrefix(d, "*"):
			into, key = t.suffixes, d[1:]
		case strings.HasSuffix(d, "*"):
			into, key = t.prefixes, d[:len(d)-1]
		case d == "":
			return fmt.Errorf("domains[%d] is empty", i)
		}
		if other, ok := into[key]; ok {
			return fmt.Errorf("domains[%d]: %q already belongs to virtual host %q", i, d, other.name)
		}
		into[key] = h
	}
	return nil
}

func lengths(m map[string]*host) []int {
	var out []int
	for k := range m {
		if !slices.Contains(out, len(k)) {
			out = append(out, len(k))
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// Find is the route that a request takes, or nil: Envoy answers 404 then.
func (t *Table) Find(in *Input) *Route {
	h := t.host(in.Request.Authority)
	if h == nil {
		return nil
	}
	if h.requireTLS != nil && in.scheme() != "https" {
		return h.requireTLS
	}
	return h.index.find(h, in)
}

// host is the virtual host of an authority: an exact domain, the longest matching
// suffix, the longest matching prefix, "*".
func (t *Table) host(authority string) *host {
	if len(t.exact) == 0 && len(t.suffixes) == 0 && len(t.prefixes) == 0 {
		return t.fallback
	}
	if authority == "" {
		return nil
	}
	if t.ignorePort {
		if at := portStart(authority); at >= 0 {
			authority = authority[:at]
		}
	}
	authority = strings.ToLower(authority)
	if h, ok := t.exact[authority]; ok {
		return h
	}
	for _, n := range t.suffixLengths {
		if n < len(authority) {
			if h, ok := t.suffixes[authority[len(authority)-n:]]; ok {
				return h
			}
		}
	}
	for _, n := range t.prefixLengths {
		if n < len(authority) {
			if h, ok := t.prefixes[authority[:n]]; ok {
				return h
			}
		}
	}
	return t.fallback
}

// portStart is where ":port" begins in an authority, or -1.
func portStart(authority string) int {
	at := strings.LastIndexByte(authority, ':')
	if at < 0 || strings.LastIndexByte(authority, ']') > at {
		return -1
	}
	return at
}
