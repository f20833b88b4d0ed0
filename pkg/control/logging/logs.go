package logging

import (
	"cmp"
	"maps"
	"slices"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryapi "istio.io/api/telemetry/v1alpha1"
	typeapi "istio.io/api/type/v1beta1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
)

const (
	groupGateway     = "gateway.networking.k8s.io"
	labelGatewayName = groupGateway + "/gateway-name"
	// builtin is the provider that every mesh has: a file, by the mesh's settings.
	builtin = "envoy"
	stdout  = "/dev/stdout"
)

// Logs are the access loggers of one model's waypoints.
type Logs struct {
	m *model.Model
	// byScope are the Telemetries of each scope, the first counts.
	byScope map[scope][]*telemetryv1.Telemetry
}

// scope is what a Telemetry is for.
type scope struct {
	kind string // Namespace, Gateway, GatewayClass, Service or ServiceEntry
	key  model.Key
}

// New reads a model.
func New(m *model.Model) *Logs {
	l := &Logs{m: m, byScope: map[scope][]*telemetryv1.Telemetry{}}
	all := slices.SortedStableFunc(slices.Values(m.Objects.Telemetries), func(a, b *telemetryv1.Telemetry) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	for _, t := range all {
		for _, s := range scopes(t) {
			l.byScope[s] = append(l.byScope[s], t)
		}
	}
	return l
}

// scopes are what t is for; none for a selector of other workloads than waypoints.
func scopes(t *telemetryv1.Telemetry) (out []scope) {
	refs := t.Spec.GetTargetRefs()
	if r := t.Spec.GetTargetRef(); r != nil {
		refs = []*typeapi.PolicyTargetReference{r}
	}
	for _, r := range refs {
		out = append(out, scope{r.GetKind(), model.Key{Namespace: t.Namespace, Name: r.GetName()}})
	}
	labels := t.Spec.GetSelector().GetMatchLabels()
	switch {
	case len(refs) > 0:
	case len(labels) == 0:
		out = append(out, scope{"Namespace", model.Key{Namespace: t.Namespace}})
	case len(labels) == 1 && labels[labelGatewayName] != "":
		out = append(out, scope{"Gateway", model.Key{Namespace: t.Namespace, Name: labels[labelGatewayName]}})
	}
	return out
}

func (l *Logs) mesh() *meshapi.MeshConfig { return l.m.Objects.Mesh }

// levels are the Telemetries that hold for a service at a waypoint, or for
// workloads' own addresses where s is nil; the last decides.
func (l *Logs) levels(w *model.Waypoint, s *model.Service) (out []*telemetryv1.Telemetry) {
	root := l.mesh().GetRootNamespace()
	order := []scope{{"Namespace", model.Key{Namespace: root}}, {"GatewayClass", model.Key{Namespace: root, Name: string(w.Gateway.Spec.GatewayClassName)}}}
	if w.Key.Namespace != root {
		order = append(order, scope{"Namespace", model.Key{Namespace: w.Key.Namespace}})
	}
	order = append(order, scope{"Gateway", w.Key})
	if s != nil && s.Kube != nil {
		order = append(order, scope{"Service", model.Key{Namespace: s.Namespace, Name: s.Kube.Name}})
	}
	if s != nil && s.Entry != nil {
		order = append(order, scope{"ServiceEntry", model.Key{Namespace: s.Namespace, Name: s.Entry.Name}})
	}
	for _, o := range order {
		if found := l.byScope[o]; len(found) > 0 {
			out = append(out, found[0])
		}
	}
	return out
}

// AccessLogs are the loggers of a service's port, or of workloads' own addresses
// where s is nil. With cel a filter is sent as it is written, for an Envoy with
// Istio's extensions; else as Envoy's own filters, and one that they cannot
// express is left out, so that more is logged.
func (l *Logs) AccessLogs(w *model.Waypoint, s *model.Service, cel bool) ([]*accesslogv3.AccessLog, error) {
	enabled, spoken := l.enabled(l.levels(w, s))
	if !spoken && len(enabled) == 0 && l.mesh().GetAccessLogFile() != "" {
		log, err := l.file(l.mesh().GetAccessLogFile(), nil, false)
		if err != nil {
			return nil, err
		}
		return []*accesslogv3.AccessLog{log}, nil
	}
	var out []*accesslogv3.AccessLog
	for _, name := range slices.Sorted(maps.Keys(enabled)) {
		p := l.provider(name)
		if p == nil {
			continue // Status names it
		}
		log, err := l.file(p.GetPath(), p, name == builtin)
		if err != nil {
			return nil, err
		}
		if f := enabled[name]; f != nil {
			if log.Filter, err = filter(f.GetExpression(), cel); err != nil {
				log.Filter = nil
			}
		}
		out = append(out, log)
	}
	return out, nil
}

// enabled are the providers that log, with their filters, and whether a Telemetry
// speaks of access logs at all. Entries without providers are about those of the
// level above.
func (l *Logs) enabled(levels []*telemetryv1.Telemetry) (map[string]*telemetryapi.AccessLogging_Filter, bool) {
	above := l.mesh().GetDefaultProviders().GetAccessLogging()
	out := map[string]*telemetryapi.AccessLogging_Filter{}
	for _, name := range above {
		out[name] = nil
	}
	spoken := false
	for _, t := range levels {
		var named []string
		for _, entry := range t.Spec.AccessLogging {
			if !atServer(entry) {
				continue
			}
			if !spoken { // what the Telemetries say takes the place of the defaults
				spoken = true
				clear(out)
			}
			names := above
			if refs := entry.GetProviders(); len(refs) > 0 {
				names = nil
				for _, r := range refs {
					names = append(names, r.GetName())
				}
				named = append(named, names...)
			}
			for _, name := range names {
				if entry.GetDisabled().GetValue() {
					delete(out, name)
				} else {
					out[name] = entry.GetFilter()
				}
			}
		}
		if len(named) > 0 {
			// Providers that a level names replace those of the levels above.
			maps.DeleteFunc(out, func(name string, _ *telemetryapi.AccessLogging_Filter) bool { return !slices.Contains(named, name) })
			above = named
		}
	}
	return out, spoken
}

// atServer tells whether an entry is for the destination's side, where waypoints are.
func atServer(entry *telemetryapi.AccessLogging) bool {
	return entry.GetMatch().GetMode() != telemetryapi.WorkloadMode_CLIENT
}

// provider is a file logger of the mesh, or nil.
func (l *Logs) provider(name string) *meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider {
	for _, p := range l.mesh().GetExtensionProviders() {
		if p.GetName() == name {
			return p.GetEnvoyFileAccessLog()
		}
	}
	if name == builtin {
		return &meshapi.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider{Path: stdout}
	}
	return nil
}
