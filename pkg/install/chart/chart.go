// Package chart renders the Helm chart that the binary carries: profiles, values and the
// check of values come from it, so that `fairlead install` and `helm install` give the
// same objects.
//
// For pkg/install.
package chart

import (
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	v2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/deploy"
)

const root = "charts/fairlead"

// Namespace is where the mesh lives: agents, waypoints and Istio's tools look there.
const Namespace = "istio-system"

// DefaultProfile is that of an installation that names none.
const DefaultProfile = "default"

// Release is one rendering.
type Release struct {
	Profile string         // must be one of [Profiles]
	Values  map[string]any // over the profile's; or nil
	// Version is that of the images, where the value tag says nothing.
	Version string
}

var load = sync.OnceValues(func() (*v2.Chart, error) {
	var files []*archive.BufferedFile
	err := fs.WalkDir(deploy.Chart, root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := deploy.Chart.ReadFile(file)
		files = append(files, &archive.BufferedFile{Name: strings.TrimPrefix(file, root+"/"), Data: data})
		return err
	})
	if err != nil {
		return nil, err
	}
	return loader.LoadFiles(files)
})

// Profiles are the names of the profiles, sorted.
func Profiles() []string {
	files, _ := fs.Glob(deploy.Chart, root+"/profiles/*.yaml")
	for i, f := range files {
		files[i] = strings.TrimSuffix(path.Base(f), ".yaml")
	}
	return files
}

// Profile is what a profile says over the chart's defaults, and its text.
func Profile(name string) (values map[string]any, text string, err error) {
	if !slices.Contains(Profiles(), name) {
		return nil, "", fmt.Errorf("no profile %q: %s", name, strings.Join(Profiles(), ", "))
	}
	data, err := deploy.Chart.ReadFile(root + "/profiles/" + name + ".yaml")
	if err == nil {
		err = yaml.Unmarshal(data, &values)
	}
	return values, string(data), err
}

// Effective are all values of a release: the defaults, the profile's and its own.
func (r Release) Effective() (map[string]any, error) {
	c, err := load()
	if err != nil {
		return nil, err
	}
	profile, _, err := Profile(r.Profile)
	if err != nil {
		return nil, err
	}
	return util.CoalesceValues(c, loader.MergeMaps(profile, r.Values))
}

// Render gives the release's objects, in the order in which the templates are named; the
// definitions of kinds are apart, see [Definitions], and Helm's hooks are Helm's. Wrong values are [ValueErrors].
func (r Release) Render() ([]*unstructured.Unstructured, error) {
	values, err := r.Effective()
	if err != nil {
		return nil, err
	}
	if err := check(values); err != nil {
		return nil, err
	}
	c, err := load()
	if err != nil {
		return nil, err
	}
	versioned := *c
	metadata := *c.Metadata
	metadata.AppVersion = r.Version
	versioned.Metadata = &metadata
	top, err := util.ToRenderValuesWithSchemaValidation(&versioned, values, common.ReleaseOptions{
		Name: "fairlead", Namespace: Namespace, IsInstall: true, Revision: 1,
	}, nil, true)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(&versioned, top)
	if err != nil {
		return nil, required(err)
	}
	var out []*unstructured.Unstructured
	for _, name := range slices.Sorted(maps.Keys(files)) {
		objects, err := decode([]byte(files[name]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, objects...)
	}
	err = typed(out)
	return slices.DeleteFunc(out, func(o *unstructured.Unstructured) bool { return o.GetAnnotations()[hook] != "" }), err
}

// hook is on what Helm makes for a moment, in an uninstallation of its own.
const hook = "helm.sh/hook"

// required takes the sentence of a template's `required` out of where it was called, and
// the path that it begins with.
func required(err error) error {
	place, sentence, ok := strings.Cut(err.Error(), "): ")
	if !ok || !strings.HasPrefix(place, "execution error at (") {
		return err
	}
	at, sentence, ok := strings.Cut(sentence, ": ")
	if !ok {
		return err
	}
	return ValueErrors{{Path: at, Message: sentence}}
}

// Definitions are the CustomResourceDefinitions that the mesh reads.
func Definitions() ([]*unstructured.Unstructured, error) {
	files, err := fs.Glob(deploy.Chart, root+"/crds/*.yaml")
	if err != nil {
		return nil, err
	}
	var out []*unstructured.Unstructured
	for _, f := range files {
		data, err := deploy.Chart.ReadFile(f)
		if err != nil {
			return nil, err
		}
		objects, err := decode(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		out = append(out, objects...)
	}
	return out, nil
}

// decode gives the objects of YAML documents; those of comments alone are none.
func decode(text []byte) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for doc := range strings.SplitSeq("\n"+string(text), "\n---") {
		text, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		o := &unstructured.Unstructured{}
		if err := json.Unmarshal(text, &o.Object); err != nil { // whole numbers stay whole
			return nil, err
		}
		if len(o.Object) > 0 {
			out = append(out, o)
		}
	}
	return out, nil
}
