package analyze

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// builtin are the providers that exist without being defined.
var builtin = []string{"prometheus", "stackdriver", "envoy"}

func (w *world) telemetry() {
	defined := slices.Clone(builtin)
	for _, p := range w.mesh.GetExtensionProviders() {
		defined = append(defined, p.GetName())
	}
	slices.Sort(defined)
	defined = slices.Compact(defined)
	wide := map[string][]*manifest{}
	for _, d := range w.of(telemetry, "Telemetry") {
		labels := texts(document.At(d.value, "spec", "selector", "matchLabels"))
		w.selects(d, "spec.selector.matchLabels", labels, Error, ReferencedResourceNotFound)
		if len(labels) == 0 && document.At(d.value, "spec", "targetRef") == nil && document.At(d.value, "spec", "targetRefs") == nil {
			wide[d.Ref.Namespace] = append(wide[d.Ref.Namespace], d)
		}
		for _, section := range []string{"tracing", "metrics", "accessLogging"} {
			for i, one := range document.List(d.value, "spec", section) {
				w.providers(d, fmt.Sprintf("spec.%s[%d].providers", section, i), one, defined)
			}
		}
	}
	for namespace, all := range wide {
		for _, section := range []string{"tracing", "metrics", "accessLogging"} {
			var names []string
			var of []*manifest
			for _, d := range all {
				if document.At(d.value, "spec", section) != nil {
					names, of = append(names, d.Ref.Name), append(of, d)
				}
			}
			if len(names) < 2 {
				continue
			}
			slices.Sort(names)
			for _, d := range of {
				w.reportAt(Error, ConflictingTelemetries, d, "", "The Telemetries %v in namespace %q have no workload selector, which can lead to undefined behavior.", names, namespace)
			}
		}
	}
	w.sampling()
}

func (w *world) providers(d *manifest, field string, section any, defined []string) {
	all, said := document.At(section, "providers").([]any)
	if said && len(all) == 0 {
		w.reportAt(Warning, EmptyProviders, d, field, "The Telemetry %s in namespace %q with empty providers will be ignored.", d.Ref.Name, d.Ref.Namespace)
	}
	for i, p := range all {
		name := document.Text(p, "name")
		if name != "" && !slices.Contains(defined, name) {
			w.reportAt(Warning, ProviderUndefined, d, fmt.Sprintf("%s[%d].name", field, i), "provider %s is not defined; providers: %s", name, strings.Join(defined, ", "))
		}
	}
}

// rate is where a share of traces is set.
type rate struct {
	manifest *manifest
	field    string
	percent  float64
	// collector is where spans go, as far as it is said there.
	collector string
}

// sampling says which rate is in effect where several are set for the mesh.
func (w *world) sampling() {
	var all []rate
	for _, o := range w.operators {
		tracing := document.At(o.value, "spec", "meshConfig", "defaultConfig", "tracing")
		if n, ok := number(document.At(tracing, "sampling")); ok {
			all = append(all, rate{o, "spec.meshConfig.defaultConfig.tracing.sampling", n, document.Text(tracing, "zipkin", "address")})
		}
	}
	for _, d := range w.of(telemetry, "Telemetry") {
		if d.Ref.Namespace != w.objects.Mesh.GetRootNamespace() || document.At(d.value, "spec", "selector") != nil {
			continue
		}
		for i, t := range document.List(d.value, "spec", "tracing") {
			if n, ok := number(document.At(t, "randomSamplingPercentage")); ok {
				all = append(all, rate{d, fmt.Sprintf("spec.tracing[%d].randomSamplingPercentage", i), n, ""})
			}
		}
	}
	if len(all) < 2 {
		return
	}
	last := all[len(all)-1]
	for _, r := range all[:len(all)-1] {
		text := ""
		if r.percent != last.percent {
			text = fmt.Sprintf("a sampling of %s %% is not in effect: %s sets %s %% for the mesh", percent(r.percent), last.manifest.place(last.field), percent(last.percent))
		}
		for _, other := range all {
			if other.collector != "" && r.collector != "" && other.collector != r.collector && text != "" {
				text += fmt.Sprintf("; %s sends spans to %s, and %s to %s", r.manifest.place(r.field), r.collector, other.manifest.place(other.field), other.collector)
				break
			}
		}
		if text != "" {
			w.reportAt(Info, SamplingDiffers, r.manifest, r.field, "%s (a Telemetry wins over the mesh configuration, and of the installer's files the last)", text)
		}
	}
}

func percent(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }

// place names a document's field for who reads about another.
func (d *manifest) place(field string) string {
	if d.stored {
		return d.Ref.String()
	}
	return fmt.Sprintf("%s:%d", d.File, d.Line(field))
}
