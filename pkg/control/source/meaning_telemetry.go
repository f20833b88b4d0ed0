package source

import (
	"fmt"

	telemetryapi "istio.io/api/telemetry/v1alpha1"
	telemetryv1 "istio.io/client-go/pkg/apis/telemetry/v1"
)

func (m meaning) telemetry(t *telemetryv1.Telemetry) {
	m.target(t.Spec.GetSelector(), t.Spec.GetTargetRef(), t.Spec.GetTargetRefs())
	for i, l := range t.Spec.AccessLogging {
		at := fmt.Sprintf("spec.accessLogging[%d]", i)
		m.providers(at, l.GetProviders())
		if l.GetFilter() != nil && l.GetFilter().GetExpression() == "" {
			m.fail(at+".filter.expression", "an empty expression: leave filter out to log everything")
		}
	}
	for i, metrics := range t.Spec.Metrics {
		at := fmt.Sprintf("spec.metrics[%d]", i)
		m.providers(at, metrics.GetProviders())
		for j, o := range metrics.GetOverrides() {
			m.override(fmt.Sprintf("%s.overrides[%d]", at, j), o)
		}
	}
	for i, tracing := range t.Spec.Tracing {
		m.tracing(fmt.Sprintf("spec.tracing[%d]", i), tracing)
	}
}

func (m meaning) providers(at string, refs []*telemetryapi.ProviderRef) {
	for i, r := range refs {
		if r.GetName() == "" {
			m.fail(fmt.Sprintf("%s.providers[%d].name", at, i), "a provider needs the name of one of the mesh configuration's extensionProviders")
		}
	}
}

func (m meaning) override(at string, o *telemetryapi.MetricsOverrides) {
	if o.GetMatch() == nil && o.GetDisabled() == nil && len(o.GetTagOverrides()) == 0 {
		m.warn(at, "an override without disabled and tagOverrides changes nothing")
	}
	if custom, ok := o.GetMatch().GetMetricMatch().(*telemetryapi.MetricSelector_CustomMetric); ok && custom.CustomMetric == "" {
		m.fail(at+".match.customMetric", "a custom metric needs a name")
	}
	for label, tag := range o.GetTagOverrides() {
		path := at + ".tagOverrides[" + label + "]"
		switch upsert := tag.GetOperation() == telemetryapi.MetricsOverrides_TagOverride_UPSERT; {
		case label == "":
			m.fail(at+".tagOverrides", "a label needs a name")
		case upsert && tag.GetValue() == "":
			m.fail(path+".value", "operation UPSERT needs a value, an expression such as request.method")
		case !upsert && tag.GetValue() != "":
			m.fail(path+".value", "operation %s takes no value", tag.GetOperation())
		}
	}
}

func (m meaning) tracing(at string, t *telemetryapi.Tracing) {
	m.providers(at, t.GetProviders())
	if len(t.GetProviders()) > 1 {
		m.fail(at+".providers", "tracing can have one provider, and there are %d", len(t.GetProviders()))
	}
	if p := t.GetRandomSamplingPercentage(); p != nil && !(p.Value >= 0 && p.Value <= 100) {
		m.fail(at+".randomSamplingPercentage", "%g is not between 0 and 100", p.Value)
	}
	for name, tag := range t.GetCustomTags() {
		path := at + ".customTags[" + name + "]"
		switch of := tag.GetType().(type) {
		case nil:
			m.fail(path, "a tag needs literal, environment, header or formatter")
		case *telemetryapi.Tracing_CustomTag_Literal:
			if of.Literal.GetValue() == "" {
				m.fail(path+".literal.value", "a literal needs a value")
			}
		case *telemetryapi.Tracing_CustomTag_Environment:
			if of.Environment.GetName() == "" {
				m.fail(path+".environment.name", "which environment variable? It needs a name")
			}
		case *telemetryapi.Tracing_CustomTag_Header:
			if of.Header.GetName() == "" {
				m.fail(path+".header.name", "which header? It needs a name")
			}
		}
	}
}
