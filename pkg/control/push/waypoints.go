package push

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// waypointRole is the first part of a waypoint's node id.
	waypointRole = "waypoint"
	// Metadata of a node: which proxy it says it is. Our own waypoint has both.
	istioVersion    = "ISTIO_VERSION"
	fairleadVersion = "FAIRLEAD_VERSION"
	// labelGatewayName is the label of a waypoint's pods that names their Gateway.
	labelGatewayName = "gateway.networking.k8s.io/gateway-name"
	// labelSubZone is Istio's, of a node.
	labelSubZone = "topology.istio.io/subzone"
)

const (
	// maxForms bounds the forms of a Gateway's configuration that are kept: those that its
	// clients ask for, in whatever words. formsAtOnce and formsPerSecond bound how often one is
	// made for a client that comes.
	maxForms                    = 64
	formsAtOnce, formsPerSecond = 64, 2
	// maxGateways bounds the memory of who had one made.
	maxGateways = 10_000
	// maxLabels and maxLabelSize bound what a client says that its pod is labelled with.
	maxLabels, maxLabelSize = 256, 512
)

// Consumer is what a configuration depends on beside its Gateway: who takes it.
type Consumer struct {
	// Istio says that it is an Envoy with Istio's extensions, Own that it is our own
	// waypoint. Neither is an Envoy as it comes from upstream.
	Istio, Own bool
	// Region, Zone and SubZone are those of its node.
	Region, Zone, SubZone string
	// Labels are what it says that its pod has.
	Labels map[string]string
}

// String tells consumers apart.
func (c Consumer) String() string {
	return fmt.Sprintf("%t %t %q %q %q %q", c.Istio, c.Own, c.Region, c.Zone, c.SubZone, c.Labels)
}

// Generate makes the configuration of one of a model's waypoints in Envoy's types.
// A message or map that it returned is never changed: where the same one is returned
// again, also for a later model, it is known to be unchanged without a look at it; so
// is a route within a route configuration.
// It is called by one goroutine at a time.
type Generate func(w *model.Waypoint, c Consumer) (Generated, error)

// Waypoints holds the configurations of the waypoints that are connected, each in
// the forms that its clients understand: one [Log] for a Gateway and form.
type Waypoints struct {
	logger *slog.Logger

	// mu guards below.
	mu       sync.Mutex
	model    *model.Model // or nil: none yet
	generate Generate     // of the model
	logs     map[form]*served
	making   map[model.Key]*rate.Limiter
}

// form tells configurations apart: a Gateway and a Consumer in words.
type form struct {
	gateway  model.Key
	consumer string
}

// served is a configuration with clients. The Waypoints' lock guards clients.
type served struct {
	form
	consumer Consumer
	log      *Log
	clients  int
	// gone is true while there is no such Gateway: what was served stays.
	gone atomic.Bool
}

func (s *served) name() string { return s.gateway.Namespace + "/" + s.gateway.Name }

// NewWaypoints serves nothing before the first model is published.
func NewWaypoints(logger *slog.Logger) *Waypoints {
	return &Waypoints{logger: logger, logs: map[form]*served{}, making: map[model.Key]*rate.Limiter{}}
}

// Publish makes the connected waypoints' configurations follow from m. A
// configuration that cannot be made stays as it was; the others are published. It
// returns how many resources changed.
func (w *Waypoints) Publish(m *model.Model, generate Generate) (changed int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.model, w.generate = m, generate
	var errs []error
	for _, s := range w.logs {
		n, err := w.makeLocked(s)
		changed += n
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

func (w *Waypoints) makeLocked(s *served) (changed int, err error) {
	i := slices.IndexFunc(w.model.Waypoints, func(o *model.Waypoint) bool { return o.Key == s.gateway })
	s.gone.Store(i < 0)
	if i < 0 {
		return 0, nil
	}
	g, err := w.generate(w.model.Waypoints[i], s.consumer)
	if err != nil {
		return 0, err
	}
	whole := Resources{} // a type that is not mentioned is empty
	for _, t := range envoyTypes {
		whole[t] = g.All[t]
	}
	g.All = whole
	return s.log.follow(g)
}

// of lists the waypoints whose pods run as a service account.
func (w *Waypoints) of(account string) (found []*model.Waypoint) {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ofLocked(account)
}

func (w *Waypoints) ofLocked(account string) (found []*model.Waypoint) {
	if w.model == nil {
		return nil
	}
	for _, o := range w.model.Waypoints {
		if o.Key.Namespace+"/"+o.ServiceAccount == account {
			found = append(found, o)
		}
	}
	return found
}

// open finds the configuration that a caller may have, by its node's metadata, and
// counts the client in. Where several Gateways have one account, the pod's label
// tells.
func (w *Waypoints) open(caller token.Caller, metadata map[string]*structpb.Value) (*served, error) {
	if w == nil {
		return nil, status.Error(codes.Unimplemented, "this control plane serves no waypoints")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	found := w.ofLocked(caller.Account())
	labels, err := labelsOf(metadata)
	if err != nil {
		return nil, err
	}
	gateway := labels[labelGatewayName]
	if len(found) > 1 || gateway != "" {
		found = slices.DeleteFunc(found, func(o *model.Waypoint) bool { return o.Key.Name != gateway })
	}
	if len(found) == 0 {
		return nil, status.Errorf(codes.PermissionDenied, "service account %s is not that of a waypoint Gateway%s", caller.Account(), named(gateway))
	}
	c := Consumer{Own: metadata[fairleadVersion] != nil, Labels: labels}
	c.Istio = !c.Own && metadata[istioVersion].GetStringValue() != ""
	c.Region, c.Zone, c.SubZone = w.localityLocked(caller.Node)
	f := form{found[0].Key, c.String()}
	s := w.logs[f]
	if s == nil {
		if !w.mayMakeLocked(f.gateway) {
			return nil, status.Errorf(codes.ResourceExhausted, "waypoint %s/%s is asked for in too many forms; try again", f.gateway.Namespace, f.gateway.Name)
		}
		s = &served{form: f, consumer: c, log: newLog(envoyTypes)}
		s.log.encoder.keep = true
		if _, err := w.makeLocked(s); err != nil {
			w.logger.Error("no configuration for a waypoint", "waypoint", s.name(), "err", err)
			return nil, status.Errorf(codes.Unavailable, "no configuration for waypoint %s: %v", s.name(), err)
		}
		w.logs[f] = s
	}
	s.clients++
	return s, nil
}

// labelsOf are those that a client says that its pod has.
func labelsOf(metadata map[string]*structpb.Value) (map[string]string, error) {
	fields := metadata["LABELS"].GetStructValue().GetFields()
	if len(fields) > maxLabels {
		return nil, status.Errorf(codes.InvalidArgument, "%d labels: a pod has %d at most", len(fields), maxLabels)
	}
	labels := make(map[string]string, len(fields))
	for name, value := range fields {
		if len(name)+len(value.GetStringValue()) > maxLabelSize {
			return nil, status.Errorf(codes.InvalidArgument, "a label of %d bytes: names and values have %d at most", len(name)+len(value.GetStringValue()), maxLabelSize)
		}
		labels[name] = value.GetStringValue()
	}
	return labels, nil
}

// mayMakeLocked tells whether another form of a Gateway's configuration may be made for a
// client. Each is made anew with every change, while the others wait.
func (w *Waypoints) mayMakeLocked(gateway model.Key) bool {
	forms := 0
	for f := range w.logs {
		if f.gateway == gateway {
			forms++
		}
	}
	l := w.making[gateway]
	if l == nil {
		if len(w.making) >= maxGateways {
			clear(w.making)
		}
		l = rate.NewLimiter(formsPerSecond, formsAtOnce)
		w.making[gateway] = l
	}
	return forms < maxForms && l.Allow()
}

func named(gateway string) string {
	if gateway == "" {
		return ""
	}
	return " named " + gateway + ", as the label " + labelGatewayName + " says"
}

// localityLocked is where a node is, by its labels.
func (w *Waypoints) localityLocked(node string) (region, zone, subZone string) {
	if w.model.Objects == nil {
		return "", "", ""
	}
	for _, n := range w.model.Objects.Nodes {
		if n.Name == node {
			return n.Labels[corev1.LabelTopologyRegion], n.Labels[corev1.LabelTopologyZone], n.Labels[labelSubZone]
		}
	}
	return "", "", ""
}

// close counts a client out. The last one takes the configuration along.
func (w *Waypoints) close(s *served) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.clients--; s.clients == 0 {
		delete(w.logs, s.form)
	}
}
