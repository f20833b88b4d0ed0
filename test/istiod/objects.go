package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	yamlreader "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// key names an object.
type key struct {
	schema.GroupKind
	namespace, name string
}

func keyOf(o *unstructured.Unstructured) key {
	return key{o.GroupVersionKind().GroupKind(), o.GetNamespace(), o.GetName()}
}

func (k key) String() string { return k.Kind + " " + k.namespace + "/" + k.name }

// clusterWide are the kinds without a namespace that a lab's directory may hold.
var clusterWide = map[schema.GroupKind]bool{
	{Kind: "Namespace"}: true, {Kind: "Node"}: true, {Group: "gateway.networking.k8s.io", Kind: "GatewayClass"}: true,
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"}:          true,
	{Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicy"}: true, {Group: "admissionregistration.k8s.io", Kind: "ValidatingAdmissionPolicyBinding"}: true,
}

// decode reads the objects of a file.
func decode(text []byte) (out []*unstructured.Unstructured, err error) {
	reader := yamlreader.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		var fields map[string]any
		if err := yaml.Unmarshal(doc, &fields); err != nil {
			return nil, err
		}
		if len(fields) == 0 {
			continue
		}
		o := &unstructured.Unstructured{Object: fields}
		items, isList := fields["items"].([]any)
		if o.GetKind() == "List" && isList {
			for _, item := range items {
				if m, ok := item.(map[string]any); ok {
					out = append(out, &unstructured.Unstructured{Object: m})
				}
			}
			continue
		}
		if o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("an object has no kind or no name:\n%s", doc)
		}
		out = append(out, o)
	}
}

// directory is one as it was last read.
type directory struct {
	root string
	good map[string]file
}

// file is the last good state of one, and since when it is missing: a look at a
// directory may miss one that is just being replaced.
type file struct {
	objects []*unstructured.Unstructured
	missing time.Time
}

// grace is how long a missing file still counts.
const grace = 250 * time.Millisecond

// read reads all files; what does not decode stays as it was, and is said. again says
// that it is to be looked at once more.
func (d *directory) read() (out []*unstructured.Unstructured, again bool, problems error) {
	now := map[string]file{}
	err := filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		hidden := path != d.root && strings.HasPrefix(e.Name(), ".")
		switch ext := filepath.Ext(path); {
		case e.IsDir() && hidden:
			return fs.SkipDir
		case e.IsDir() || hidden || (ext != ".yaml" && ext != ".yml"):
			return nil
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var objects []*unstructured.Unstructured
		if err == nil {
			objects, err = decode(text)
		}
		if err != nil {
			problems = errors.Join(problems, fmt.Errorf("%s: %w", path, err))
			objects = d.good[path].objects
		}
		now[path] = file{objects: objects}
		return nil
	})
	for path, f := range d.good {
		if _, there := now[path]; there {
			continue
		}
		if f.missing.IsZero() {
			f.missing = time.Now()
		}
		if time.Since(f.missing) < grace {
			now[path], again = f, true
		}
	}
	d.good = now
	for _, f := range now {
		for _, o := range f.objects {
			o = o.DeepCopy()
			if gk := o.GroupVersionKind().GroupKind(); o.GetNamespace() == "" && !clusterWide[gk] {
				o.SetNamespace(corev1.NamespaceDefault)
			}
			out = append(out, o)
		}
	}
	return out, again, errors.Join(problems, err)
}

// uid is one made of a name, for objects that are not there.
func uid(name string) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, name)
	return fmt.Sprintf("00000000-0000-4000-8000-%012x", h.Sum64()&(1<<48-1))
}
