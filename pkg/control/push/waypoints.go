package push

import (
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

const (
	// waypointRole is the first part of a waypoint's node id.
	waypointRole = "waypoint"
	// Metadata of a node: which proxy it says it is. Istio's extensions of Envoy
	// are sent to a client that has the first and not the second.
	istioVersion    = "ISTIO_VERSION"
	fairleadVersion = "FAIRLEAD_VERSION"
	// labelGatewayName is the label of a waypoint's pods that names their Gateway.
	labelGatewayName = "gateway.networking.k8s.io/gateway-name"
)

// Generate makes a waypoint's configuration in Envoy's types; with istio, Istio's
// extensions of Envoy may be used. It is a pure function, and a message that it
// returned is never changed: where it returns the same one again, that is known
// to be unchanged without a look at it.
type Generate func(m *model.Model, w *model.Waypoint, istio bool) (Resources, error)

// Waypoints holds the configurations of the waypoints that are connected, each in
// the forms that its clients understand: one [Log] for a Gateway and form.
type Waypoints struct {
	generate Generate
	logger   *slog.Logger

	// mu guards below.
	mu    sync.Mutex
	model *model.Model // or nil: none yet
	logs  map[form]*served
}

// form is what one configuration is made for.
type form struct {
	gateway model.Key
	istio   bool
}

// served is a configuration with clients. The Waypoints' lock guards clients.
type served struct {
	form
	log     *Log
	clients int
	// gone is true while there is no such Gateway: what was served stays.
	gone atomic.Bool
}

func (s *served) name() string { return s.gateway.Namespace + "/" + s.gateway.Name }

// NewWaypoints serves nothing before the first model is published.
func NewWaypoints(generate Generate, logger *slog.Logger) (*Waypoints, error) {
	if generate == nil || logger == nil {
		return nil, errors.New("push: a waypoint's configuration needs a Generate and a Logger")
	}
	return &Waypoints{generate: generate, logger: logger, logs: map[form]*served{}}, nil
}

// Publish makes the connected waypoints' configurations follow from m. A
// configuration that cannot be made stays as it was; the others are published. It
// returns how many resources changed.
func (w *Waypoints) Publish(m *model.Model) (changed int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.model = m
	var errs []error
	for f, s := range w.logs {
		if s.clients == 0 {
			delete(w.logs, f)
			continue
		}
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
	all, err := w.generate(w.model, w.model.Waypoints[i], s.istio)
	if err != nil {
		return 0, err
	}
	whole := Resources{} // a type that is not mentioned is empty
	for _, t := range envoyTypes {
		whole[t] = all[t]
	}
	return s.log.Set(whole)
}

// of lists the waypoints whose pods run as a service account.
func (w *Waypoints) of(account string) (found []*model.Waypoint) {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
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

// open finds the configuration that a pod of an account may have, by its node's
// metadata, and counts the client in. Where several Gateways have one account, the
// pod's label tells.
func (w *Waypoints) open(account string, metadata map[string]*structpb.Value) (*served, error) {
	found := w.of(account)
	label := metadata["LABELS"].GetStructValue().GetFields()[labelGatewayName].GetStringValue()
	if len(found) > 1 || label != "" {
		found = slices.DeleteFunc(found, func(o *model.Waypoint) bool { return o.Key.Name != label })
	}
	if len(found) == 0 {
		return nil, status.Errorf(codes.PermissionDenied, "service account %s is not that of a waypoint Gateway%s", account, named(label))
	}
	isIstio := metadata[istioVersion].GetStringValue() != "" && metadata[fairleadVersion] == nil
	f := form{found[0].Key, isIstio}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.logs[f]
	if s == nil {
		s = &served{form: f, log: newLog(envoyTypes)}
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

func named(label string) string {
	if label == "" {
		return ""
	}
	return " named " + label + ", as the label " + labelGatewayName + " says"
}

// close counts a client out. The configuration stays until the next one is
// published, for a client that comes back at once.
func (w *Waypoints) close(s *served) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.clients--
}
