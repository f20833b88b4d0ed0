package waypoint

import (
	"sync/atomic"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// routes is the place of a route configuration: connection managers look here at each
// request, so that a change of routes touches nothing else.
type routes struct {
	table atomic.Pointer[route.Table]
	// users is how many filter chains name it. The engine's lock guards it.
	users int
}

var _ hcm.Routes = (*routes)(nil)

// Table implements [hcm.Routes].
func (r *routes) Table() *route.Table { return r.table.Load() }

// set compiles beside and swaps; what has not changed is taken over.
func (r *routes) set(c *routev3.RouteConfiguration) error {
	t, err := route.CompileFrom(r.table.Load(), c, routeOptions)
	if err != nil {
		return err
	}
	r.table.Store(t)
	return nil
}

func (r *routes) clear() { r.table.Store(nil) }

var routeOptions = route.Options{Filter: filter.CompileRoute}
