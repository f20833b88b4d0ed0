package filter

import (
	"fmt"
	"slices"
	"strings"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// kind is how filters of a type are made.
type kind struct {
	// make compiles a filter; its name is that by which routes configure it. A nil
	// filter has nothing to do.
	make func(name string, config *anypb.Any) (Filter, error)
	// route compiles what a route says to it, by the type of that message; or nil:
	// routes say nothing.
	route map[string]func(config *anypb.Any) (any, error)
}

// kinds are all filters there are, by the type of their configuration. The router is
// package router.
var kinds = map[string]kind{
	"envoy.extensions.filters.http.fault.v3.HTTPFault":           {newFault, perRoute("envoy.extensions.filters.http.fault.v3.HTTPFault", routeFault)},
	"envoy.extensions.filters.http.cors.v3.Cors":                 {newCORS, perRoute("envoy.extensions.filters.http.cors.v3.CorsPolicy", routeCORS)},
	"envoy.extensions.filters.http.rbac.v3.RBAC":                 {newRBAC, perRoute("envoy.extensions.filters.http.rbac.v3.RBACPerRoute", routeRBAC)},
	"envoy.extensions.filters.http.set_filter_state.v3.Config":   {newState, nil},
	"envoy.extensions.filters.http.header_to_metadata.v3.Config": {newHeaderToMetadata, nil},

	// What these do is done without a filter: peers are known from discovery, and the
	// recorder counts requests and messages.
	"envoy.extensions.filters.http.grpc_stats.v3.FilterConfig": {nothing, nil},
	"io.istio.http.peer_metadata.Config":                       {nothing, nil},
	"stats.PluginConfig":                                       {nothing, nil},
}

func perRoute(name string, compile func(*anypb.Any) (any, error)) map[string]func(*anypb.Any) (any, error) {
	return map[string]func(*anypb.Any) (any, error){name: compile}
}

func nothing(string, *anypb.Any) (Filter, error) { return nil, nil }

// Compile makes a filter from its configuration; nil for one that has nothing to do. A
// filter that is not known is an error, unless it is marked optional.
func Compile(f *hcmv3.HttpFilter, typeName func(*anypb.Any) string) (Filter, error) {
	name := typeName(f.GetTypedConfig())
	k, ok := kinds[name]
	switch {
	case ok:
		return k.make(f.GetName(), f.GetTypedConfig())
	case f.GetConfigDiscovery() != nil:
		return nil, fmt.Errorf("config_discovery is not supported")
	case f.GetIsOptional():
		return nil, nil
	}
	return nil, fmt.Errorf("filter %s is not supported; those that are: %s", name, strings.Join(names(), ", "))
}

func names() (out []string) {
	for name := range kinds {
		out = append(out, name[strings.LastIndexByte(name, '.')+1:])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// CompileRoute compiles what a route says to a filter. A type that no filter takes is
// an error, unless it is optional.
func CompileRoute(_ string, config *anypb.Any) (any, error) {
	name := string(config.MessageName())
	for _, k := range kinds {
		if compile := k.route[name]; compile != nil {
			return compile(config)
		}
	}
	return nil, fmt.Errorf("no filter here takes %s", name)
}
