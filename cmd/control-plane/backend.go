package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// backend is the cluster that a control plane serves: where its objects come from,
// who its callers are, and where what follows is written. A directory is one, a
// Kubernetes API another; the rest of this program does not know which.
type backend struct {
	// name is what an operator calls it, as "directory /etc/fairlead".
	name      string
	objects   objects
	reviewer  token.Reviewer
	authority authority
	pods      ca.Pods
	statuses  statusWriter // or nil: none are written
	deployer  deployments  // or nil: nothing is deployed
	// again wakes who writes statuses, where deployments say something else; or nil.
	again chan struct{}
	// parts run beside, from before the objects are followed until after.
	parts []part
}

// openBackend is that which the command line names.
func openBackend(c config, registry *prometheus.Registry, log *slog.Logger) (*backend, error) {
	if c.configDir != "" {
		return openDirectory(c, registry, log)
	}
	return openKubernetes(c, registry, log)
}

// part is something that runs until ctx ends.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// objects are the states of a cluster, one after another.
type objects interface {
	// Objects is the latest state, or nil: none is whole yet.
	Objects() *source.Objects
	// Changed is closed when there is a newer state. Take it before Objects, so that
	// no change is missed.
	Changed() <-chan struct{}
	// Run follows the cluster until ctx ends.
	Run(ctx context.Context) error
}

var _ objects = (*source.Directory)(nil)

// authority is the mesh's CA, which may become another while it is in use.
type authority interface {
	// Current is what signs now, or nil: there is none yet.
	Current() *ca.Authority
	// Changed is closed when Current is another; nil: it never will be. Take it before
	// Current.
	Changed() <-chan struct{}
}

// errNoAuthority is said to who asks before there is a CA.
var errNoAuthority = errors.New("the certificate authority has no key yet")

// waitAuthority returns when there is a CA; false when ctx ended before.
func waitAuthority(ctx context.Context, a authority) bool {
	for {
		changed := a.Changed()
		if a.Current() != nil {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// statusWriter makes the cluster's objects carry exactly these statuses, which follow
// from the objects of a state.
type statusWriter interface {
	Write(objects *source.Objects, all []status.Status) error
}

// deployments run the waypoints that the Gateways of a state ask for.
type deployments interface {
	deploy(objects *source.Objects)
	// statuses say on the Gateways what was wrong with them.
	statuses() []status.Status
}

// objectWriter makes the cluster hold exactly these objects of those that it wrote.
type objectWriter interface {
	Write(objects []runtime.Object) error
}

// addTo makes the parts those of a group.
func (b *backend) addTo(group *run.Group) {
	for _, p := range b.parts {
		group.Add(p.name, p.run)
	}
}
