package analyze

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// stored begins the names of files that stand for a cluster's objects.
const stored = "\x00"

// groups of the kinds that are looked into.
const (
	networking = "networking.istio.io"
	security   = "security.istio.io"
	telemetry  = "telemetry.istio.io"

	gatewayGroup = "gateway.networking.k8s.io"
)

// world is all that is known, and what was found in it.
type world struct {
	Input
	objects *source.Objects
	// documents are all objects as written, of all kinds, each once: the one that is
	// in force. twice are those of files whose place another one of a file has.
	documents []*manifest
	twice     []*manifest
	byRef     map[source.Ref]*manifest
	workloads []workload
	mesh      *meshv1alpha1.MeshConfig
	// operators are the specs of the installer's files.
	operators []*manifest
	// again: this is the second look, at objects whose name others have as well.
	again bool
	found []Message
}

// manifest is an object as it is written.
type manifest struct {
	source.Document
	value  map[string]any
	stored bool // in the cluster
}

// newWorld reads the input; the files of first come before the others.
func newWorld(in Input, first []*manifest) (*world, error) {
	w := &world{Input: in, byRef: map[source.Ref]*manifest{}, again: len(first) > 0}
	before := func(f source.File) bool {
		return slices.ContainsFunc(first, func(d *manifest) bool { return d.File == f.Name })
	}
	var ahead, files []source.File
	for _, f := range in.Files {
		if before(f) {
			ahead = append(ahead, f)
		} else {
			files = append(files, f)
		}
	}
	for _, f := range slices.Concat(ahead, files) {
		for _, d := range source.Documents(f) {
			w.add(&manifest{Document: d, value: d.Value()})
		}
	}
	for i, f := range in.Stored {
		f.Name = fmt.Sprintf("%s%d", stored, i)
		all := source.Documents(f)
		if len(all) != 1 {
			return nil, errors.New("an object of the cluster cannot be read")
		}
		if w.byRef[all[0].Ref] != nil {
			continue // as it would be after the file was applied
		}
		w.add(&manifest{Document: all[0], value: all[0].Value(), stored: true})
		files = append(files, f)
	}
	w.objects = source.Parse(files, ahead)
	w.workloads = w.allWorkloads()
	w.mesh = w.meshConfig()
	return w, nil
}

func (w *world) add(d *manifest) {
	if d.value == nil {
		d.value = map[string]any{}
	}
	if d.Ref.Group == source.GroupInstall {
		w.operators = append(w.operators, d)
		return
	}
	if w.byRef[d.Ref] != nil {
		w.twice = append(w.twice, d)
		return
	}
	w.byRef[d.Ref] = d
	w.documents = append(w.documents, d)
}

// of are the documents of a kind.
func (w *world) of(group, kind string) (out []*manifest) {
	for _, d := range w.documents {
		if d.Ref.Group == group && d.Ref.Kind == kind {
			out = append(out, d)
		}
	}
	return out
}

// report notes a finding about an object, at one of its fields.
func (w *world) report(level Level, code Code, ref source.Ref, field, format string, args ...any) {
	d := w.byRef[ref]
	if d == nil {
		w.found = append(w.found, Message{Level: level, Code: code, Ref: ref, Text: fmt.Sprintf(format, args...)})
		return
	}
	w.reportAt(level, code, d, field, format, args...)
}

func (w *world) reportAt(level Level, code Code, d *manifest, field, format string, args ...any) {
	m := Message{Level: level, Code: code, Ref: d.Ref, Text: fmt.Sprintf(format, args...)}
	if !d.stored {
		m.Position = source.Position{File: d.File, Line: d.Line(field)}
	}
	w.found = append(w.found, m)
}

// workload is what runs, or is to run, as far as the mesh is concerned.
type workload struct {
	kind, namespace, name string
	labels                map[string]string
	account               string
	pod                   bool
}

// allWorkloads are the pods, and the templates of what makes pods.
func (w *world) allWorkloads() (out []workload) {
	for _, p := range w.objects.Pods {
		if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
			continue
		}
		out = append(out, workload{"Pod", p.Namespace, p.Name, p.Labels, account(p.Spec.ServiceAccountName), true})
	}
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		for _, d := range w.of("apps", kind) {
			template := document.At(d.value, "spec", "template")
			name, _ := document.At(template, "spec", "serviceAccountName").(string)
			out = append(out, workload{kind, d.Ref.Namespace, d.Ref.Name, texts(document.At(template, "metadata", "labels")), account(name), false})
		}
	}
	return out
}

func account(name string) string {
	if name == "" {
		return "default"
	}
	return name
}

// selected are the workloads of a namespace that labels select; of all with "".
func (w *world) selected(namespace string, labels map[string]string) (out []workload) {
	for _, x := range w.workloads {
		if (namespace == "" || x.namespace == namespace) && matches(labels, x.labels) {
			out = append(out, x)
		}
	}
	return out
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func number(v any) (float64, bool) { n, ok := v.(float64); return n, ok }

// texts is a map of texts, such as labels.
func texts(v any) map[string]string {
	m, _ := v.(map[string]any)
	out := make(map[string]string, len(m))
	for k, x := range m {
		out[k] = document.Text(x)
	}
	return out
}

// pairs is "a=b,c=d", as istioctl writes labels.
func pairs(labels map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		out = append(out, k+"="+labels[k])
	}
	return strings.Join(out, ",")
}
