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
	digest           digest
	specificWins     bool
	ignoreParameters bool
	maxBody          int
	mirrors          []*Mirror
	options          Options
	warnings         []string
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
	return CompileFrom(nil, rc, o)
}

// CompileFrom is as Compile, and takes over from an older table, compiled with the
// same options, what has not changed.
func CompileFrom(old *Table, rc *routev3.RouteConfiguration, o Options) (*Table, error) {
	t := &Table{
		Name: rc.GetName(), ignorePort: rc.GetIgnorePortInHostMatching(),
		exact: map[string]*host{}, suffixes: map[string]*host{}, prefixes: map[string]*host{},
	}
	c := &compiler{options: o}
	var err error
	if t.common, err = c.common(rc, old); err != nil {
		return nil, err
	}
	var previous map[string]*host
	if old != nil && old.common == t.common {
		previous = make(map[string]*host, len(old.hosts))
		for _, h := range old.hosts {
			previous[h.name] = h
		}
	}
	for i, vh := range rc.GetVirtualHosts() {
		h, err := c.host(vh, t.common, previous[vh.GetName()])
		if err != nil {
			return nil, fmt.Errorf("virtual_hosts[%d] %q: %w", i, vh.GetName(), err)
		}
		t.hosts = append(t.hosts, h)
		if err := t.addDomains(h, vh.GetDomains()); err != nil {
			return nil, fmt.Errorf("virtual_hosts[%d] %q: %w", i, vh.GetName(), err)
		}
	}
	t.Warnings = t.warnings()
	t.suffixLengths, t.prefixLengths = lengths(t.suffixes), lengths(t.prefixes)
	return t, nil
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

func (t *Table) addDomains(h *host, domains []string) error {
	if len(domains) == 0 {
		return fmt.Errorf("domains: at least one is needed")
	}
	for i, d := range domains {
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
