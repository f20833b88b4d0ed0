package waypoint

import (
	"sync"
	"sync/atomic"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// routes is the place of a route configuration: connection managers look here at each
// request, so that a change of routes touches nothing else.
type routes struct {
	table atomic.Pointer[route.Table]
	// first closes when a table has come, or none is waited for any more.
	first chan struct{}
	once  sync.Once
	// users is how many filter chains name it. The engine's lock guards it.
	users int
}

var _ hcm.Routes = (*routes)(nil)

func newRoutes() *routes { return &routes{first: make(chan struct{})} }

// Table implements [hcm.Routes]. Routes that have been named and not come yet are waited
// for, as Envoy does before it takes the connection.
func (r *routes) Table() *route.Table {
	if t := r.table.Load(); t != nil {
		return t
	}
	late := time.NewTimer(warmTimeout)
	defer late.Stop()
	select {
	case <-r.first:
	case <-late.C:
		r.waitNoMore()
	}
	return r.table.Load()
}

// waitNoMore lets requests have what there is.
func (r *routes) waitNoMore() { r.once.Do(func() { close(r.first) }) }

// warmTimeout bounds the wait for what the configuration names and has not come yet.
const warmTimeout = 5 * time.Second

// set compiles beside and swaps; what has not changed is taken over. It keeps wire.
func (r *routes) set(wire []byte) error {
	defer r.waitNoMore()
	t, err := route.CompileFrom(r.table.Load(), wire, routeOptions)
	if err != nil {
		return err
	}
	r.table.Store(t)
	return nil
}

// fixed are routes that never change: those that a listener holds.
func fixed(c *routev3.RouteConfiguration) (*routes, error) {
	t, err := route.Compile(c, routeOptions)
	if err != nil {
		return nil, err
	}
	r := newRoutes()
	r.table.Store(t)
	return r, nil
}

// warnings are what the table asks for and does not get.
func (r *routes) warnings() []string {
	if t := r.table.Load(); t != nil {
		return t.Warnings
	}
	return nil
}

func (r *routes) clear() { r.table.Store(nil) }

var routeOptions = route.Options{Filter: filter.CompileRoute}
