package logging

import (
	"cmp"
	"fmt"
	"strings"

	meshapi "istio.io/api/mesh/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
)

// Status says on each Telemetry what of it is in effect, and on the mesh's
// configuration if its log format cannot be read; sorted.
func (l *Logs) Status() []status.Status {
	var out []status.Status
	for _, t := range l.m.Objects.Telemetries {
		s := status.Status{Object: status.Object{APIVersion: "telemetry.istio.io/v1", Kind: "Telemetry", Namespace: t.Namespace, Name: t.Name}}
		s.Set(l.condition(t))
		out = append(out, s)
	}
	if wrong := l.formats(); len(wrong) > 0 {
		s := status.Status{Object: status.Object{APIVersion: "v1", Kind: "ConfigMap", Namespace: source.RootNamespace, Name: "istio"}}
		s.Set(status.Condition{Type: status.InEffect, Status: "False", Reason: "PartlyInEffect", Message: strings.Join(wrong, "; ") + ": the default format is used"})
		out = append(out, s)
	}
	status.Sort(out)
	return out
}

// formats are the formats of the mesh's configuration that cannot be read.
func (l *Logs) formats() (wrong []string) {
	own, err := l.mesh().GetAccessLogFormat(), error(nil)
	if l.mesh().GetAccessLogEncoding() == meshapi.MeshConfig_JSON {
		_, err = settingsObject(own)
	} else {
		err = checkText(own)
	}
	if err != nil {
		wrong = append(wrong, fmt.Sprintf("accessLogFormat: %v", err))
	}
	for _, p := range l.mesh().GetExtensionProviders() {
		f := p.GetEnvoyFileAccessLog().GetLogFormat()
		err := checkText(f.GetText())
		if f.GetLabels() != nil {
			err = checkObject(f.GetLabels())
		}
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("extensionProviders[%s]: %v", p.GetName(), err))
		}
	}
	return wrong
}

func (l *Logs) condition(t *telemetryv1.Telemetry) status.Condition {
	var not []string
	say := func(format string, args ...any) { not = append(not, fmt.Sprintf(format, args...)) }
	at := l.places(t, say)
	for i, entry := range t.Spec.AccessLogging {
		path := fmt.Sprintf("spec.accessLogging[%d]", i)
		if !atServer(entry) {
			say("%s.match: waypoints log for the destination, mode SERVER", path)
		}
		for j, p := range entry.GetProviders() {
			if l.provider(p.GetName()) == nil {
				say("%s.providers[%d]: %s", path, j, l.whyNot(p.GetName()))
			}
		}
		if f := entry.GetFilter(); f != nil {
			if _, err := filter(f.GetExpression(), false); err != nil {
				say("%s.filter.expression: %v: without the filter, everything is logged", path, err)
			}
		}
	}
	if len(t.Spec.Metrics) > 0 {
		say("spec.metrics: metrics cannot be changed yet, all labels are kept")
	}
	if len(t.Spec.Tracing) > 0 {
		say("spec.tracing: no spans are sent yet")
	}
	c := status.Condition{Type: status.InEffect, Status: "True", Reason: "InEffect", Message: "access logging is in effect at " + strings.Join(at, ", ")}
	if len(not) == 0 {
		return c
	}
	c.Status, c.Reason, c.Message = "False", "PartlyInEffect", strings.Join(not, "; ")
	if len(at) == 0 || len(t.Spec.AccessLogging) == 0 {
		c.Reason = "NotInEffect"
	}
	return c
}

// whyNot tells why a provider does not log.
func (l *Logs) whyNot(name string) string {
	names := []string{builtin}
	for _, p := range l.mesh().GetExtensionProviders() {
		if p.GetName() == name {
			return fmt.Sprintf("provider %q is not a file, and only envoyFileAccessLog is served", name)
		}
		if p.GetEnvoyFileAccessLog() != nil {
			names = append(names, p.GetName())
		}
	}
	return fmt.Sprintf("the mesh configuration has no extensionProvider %q; there are %s", name, strings.Join(names, ", "))
}

// places are where t decides.
func (l *Logs) places(t *telemetryv1.Telemetry, say func(string, ...any)) (at []string) {
	all := scopes(t)
	if len(all) == 0 {
		say("its selector is for workloads, and access logs are written at waypoints: use targetRefs, or the label %s", labelGatewayName)
	}
	root := l.mesh().GetRootNamespace()
	for _, s := range all {
		name := cmp.Or(s.key.Name, s.key.Namespace)
		if first := l.byScope[s][0]; first != t {
			say("%s %s is decided by Telemetry %s/%s, which is older or first by name", s.kind, name, first.Namespace, first.Name)
			continue
		}
		switch {
		case s.kind == "Namespace" && s.key.Namespace == root:
			at = append(at, "every waypoint")
		case s.kind == "Namespace":
			at = append(at, "the waypoints of namespace "+name)
		case s.kind == "GatewayClass" && s.key.Namespace != root:
			say("only the root namespace %s may speak for a GatewayClass", root)
		case !l.there(s):
			say("%s %s/%s was not found, or has no waypoint", s.kind, s.key.Namespace, name)
		default:
			at = append(at, s.kind+" "+name)
		}
	}
	return at
}

// there tells whether a scope is a waypoint, or behind one.
func (l *Logs) there(s scope) bool {
	for _, w := range l.m.Waypoints {
		if s.kind == "Gateway" && w.Key == s.key || s.kind == "GatewayClass" && string(w.Gateway.Spec.GatewayClassName) == s.key.Name {
			return true
		}
		for _, one := range w.Services {
			if one.Namespace == s.key.Namespace && (s.kind == "Service" && one.Kube != nil && one.Kube.Name == s.key.Name ||
				s.kind == "ServiceEntry" && one.Entry != nil && one.Entry.Name == s.key.Name) {
				return true
			}
		}
	}
	return s.kind == "GatewayClass" && s.key.Name == "istio-waypoint"
}
