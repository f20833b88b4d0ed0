package apply

import (
	"context"
	"crypto/sha256"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// FieldManager owns the fields of waypoints' objects.
const FieldManager = "fairlead-waypoint"

const (
	// pause is how long changes are gathered before objects are made.
	pause = 50 * time.Millisecond
	// firstRetry and lastRetry bound the time between two tries of a Gateway that failed.
	firstRetry, lastRetry = time.Second, time.Minute
	// atOnce is how many Gateways are applied at a time.
	atOnce = 4
	// maxApply bounds what is asked of the API server for one Gateway.
	maxApply = time.Minute
)

// Options of an Applier. All are needed but Changed.
type Options struct {
	// Metadata applies, deletes and watches objects; Dynamic reads ConfigMaps.
	Metadata metadata.Interface
	Dynamic  dynamic.Interface
	// SystemNamespace is where the class's ConfigMap is.
	SystemNamespace string
	// Deploy is what Gateways do not say, but for the trust domain and parameters.
	Deploy deploy.Options
	// Changed is called when Statuses says something else.
	Changed  func()
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

// Applier keeps waypoints' objects in the cluster, while it runs.
type Applier struct {
	options Options
	logger  *slog.Logger
	applies *prometheus.CounterVec
	dirty   chan struct{} // has room for one

	// mu guards below.
	mu       sync.Mutex
	gateways []*gatewayv1.Gateway
	mesh     *meshv1alpha1.MeshConfig
	set      bool
	children *children
	maps     *configMaps
	said     map[types.NamespacedName]problem
}

// problem is why a Gateway is not deployed as it asks.
type problem struct{ accepted, programmed, message string }

// New makes an Applier that applies nothing yet.
func New(o Options) (*Applier, error) {
	if o.Metadata == nil || o.Dynamic == nil || o.SystemNamespace == "" || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("waypoints' objects: clients, the system's namespace, a registry and a logger are needed")
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	a := &Applier{
		options: o, logger: o.Logger, dirty: make(chan struct{}, 1), said: map[types.NamespacedName]problem{},
		applies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairlead_waypoint_applies_total", Help: "Waypoints' objects applied to the Kubernetes API, by result: ok or error.",
		}, []string{"result"}),
	}
	return a, o.Registry.Register(a.applies)
}

// Set makes these the Gateways that there are. It does not wait for anything.
func (a *Applier) Set(gateways []*gatewayv1.Gateway, mesh *meshv1alpha1.MeshConfig) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.set && source.Same(a.gateways, gateways) && a.mesh == mesh {
		return
	}
	a.gateways, a.mesh, a.set = gateways, mesh, true
	a.wake()
}

func (a *Applier) wake() {
	select {
	case a.dirty <- struct{}{}:
	default: // it is
	}
}

// Statuses say on Gateways why they are not deployed as they ask.
func (a *Applier) Statuses() []status.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []status.Status
	for gateway, p := range a.said {
		s := status.Status{Object: translate.GatewayObject(gateway.Namespace, gateway.Name)}
		if p.accepted != "" {
			s.Set(status.Condition{Type: status.RouteAccepted, Status: "False", Reason: p.accepted, Message: p.message})
		}
		s.Set(status.Condition{Type: status.Programmed, Status: "False", Reason: p.programmed, Message: p.message + "; what was deployed before is left as it is"})
		out = append(out, s)
	}
	status.Sort(out)
	return out
}

// problemOf is an error in the words of the Gateway API.
func problemOf(err error) problem {
	var parameters *deploy.ParametersError
	var api apierrors.APIStatus
	switch {
	case errors.As(err, &parameters):
		return problem{string(gatewayv1.GatewayReasonInvalidParameters), string(gatewayv1.GatewayReasonInvalid), err.Error()}
	case errors.As(err, &api):
		return problem{"", string(gatewayv1.GatewayReasonPending), err.Error()}
	}
	return problem{string(gatewayv1.GatewayReasonInvalid), string(gatewayv1.GatewayReasonInvalid), err.Error()}
}

// Run applies until ctx ends. It may be run again, by one caller at a time.
func (a *Applier) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.mu.Lock()
	a.children, a.maps = newChildren(a), newConfigMaps(ctx, a, &group)
	children, maps := a.children, a.maps
	a.mu.Unlock()
	children.start(ctx, &group)
	maps.start()
	r := &round{Applier: a, children: children, maps: maps, applied: map[types.NamespacedName]*applied{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.dirty:
			select { // others may be on their way
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		case <-timer.C:
		}
		if next := r.all(ctx); next > 0 {
			timer.Reset(next)
		}
	}
}

// applied is what is known of a Gateway that was applied.
type applied struct {
	sum  [sha256.Size]byte
	done bool
	// wait is how long it is left alone after it failed, until again.
	wait  time.Duration
	again time.Time
}

// say notes how Gateways fared.
func (a *Applier) say(problems map[types.NamespacedName]error) {
	said := make(map[types.NamespacedName]problem, len(problems))
	for gateway, err := range problems {
		said[gateway] = problemOf(err)
	}
	a.mu.Lock()
	before := a.said
	a.said = said
	a.mu.Unlock()
	changed := len(before) != len(said)
	for gateway, p := range said {
		if before[gateway] != p {
			changed = true
			a.logger.Error("a waypoint is not deployed as its Gateway asks", "gateway", gateway.String(), "err", p.message)
		}
	}
	if changed {
		a.options.Changed()
	}
}
