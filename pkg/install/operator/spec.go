package operator

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// Why fields have no effect.
const (
	noSidecar   = "there is no sidecar to set up; what carries traffic is nodeAgent and waypoint"
	noIngress   = "Fairlead has no ingress and egress gateways of its own yet: nothing is installed for it"
	noRevisions = "there is one revision, default"
	noOverlays  = "objects are not patched after they are rendered: set values, or patch what `fairlead manifest generate` prints"
	noFiles     = "the chart is the one that the binary carries"
	oneService  = "the Service of the control plane is for the mesh alone and not set up"
	oneProbe    = "the probe is the product's own"
	safely      = "the product's own rule holds: a new pod is ready before an old one goes"
	fixedRights = "pods run with the rights that they need and no others"
	noVolumes   = "the product's pods take no volumes of others"
)

// own are the chart's values, as they are.
func own() map[string]rule {
	fields := map[string]rule{}
	for _, key := range chart.Keys(nil) {
		fields[key] = rule{to: key}
	}
	delete(fields, "global") // Helm's, for charts within charts
	fields["tag"] = rule{take: str("tag")}
	fields["meshConfig"] = rule{take: meshConfig}
	return fields
}

// spec is what an IstioOperator says, and what --set reaches: Istio's fields, and the
// chart's values beside them.
func spec() map[string]rule {
	fields := own()
	for name, r := range map[string]rule{
		"profile":              {take: profile},
		"namespace":            {take: namespace},
		"revision":             {take: revision},
		"compatibilityVersion": {inert: "there is no older behaviour to keep"},
		"installPackagePath":   {inert: noFiles},
		"unvalidatedValues":    {inert: "values are validated; set them under values"},
		"components":           {fields: components()},
		"values":               {fields: values(), hints: map[string]string{"istio_cni": "it is called cni"}},
	} {
		fields[name] = r
	}
	return fields
}

// profile picks one of a closed set.
func profile(r *reader, n *yaml.Node, field string) {
	name := n.Value
	switch {
	case name == "ambient":
		r.note(n.Line, field, `every profile of Fairlead is without sidecars: "ambient" is taken as %q`, chart.DefaultProfile)
		name = chart.DefaultProfile
	case !slices.Contains(chart.Profiles(), name):
		r.fail(n.Line, field, "no profile %q: there are %s%s", name, strings.Join(chart.Profiles(), ", "), suggest.DidYouMean(name, chart.Profiles()))
	}
	r.request.Profile = name
}

func revision(r *reader, n *yaml.Node, field string) {
	if n.Value != "" && n.Value != "default" {
		r.fail(n.Line, field, "%q: %s; an upgrade replaces the installation in place", n.Value, noRevisions)
	}
}

// str takes a scalar as it is written: a tag 1.20 is no number.
func str(to string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		if n.Kind != yaml.ScalarNode {
			r.fail(n.Line, field, "one word is wanted")
			return
		}
		r.put(to, n.Value)
		r.request.origins[to] = origin{r.file, n.Line, field}
	}
}

// all takes a value to several places.
func all(to ...string) func(*reader, *yaml.Node, string) {
	return func(r *reader, n *yaml.Node, field string) {
		for _, t := range to {
			r.set(t, n, field)
		}
	}
}

func meshConfig(r *reader, n *yaml.Node, field string) {
	problems, unserved := source.CheckMeshConfig(n, field)
	for _, p := range problems {
		r.fail(p.Line, p.Field, "%s", p.Message)
	}
	for _, key := range unserved {
		r.note(keyLine(n, key), field+"."+key, "%s", meshNote(key))
	}
	r.set("meshConfig", n, field)
}

// meshNote is what is said of a key of the mesh configuration that has no effect.
func meshNote(key string) string {
	switch key {
	case "outboundTrafficPolicy":
		return "kept, and not enforced yet: pods reach destinations outside the mesh whatever it says"
	case "defaultConfig":
		return "kept, without effect: there is no sidecar, a pod is in the mesh before its first process runs, and requests are not traced yet"
	}
	return "kept, without effect here"
}
