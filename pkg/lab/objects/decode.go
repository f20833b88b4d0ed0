package objects

import (
	"bytes"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// document is one YAML document of a file.
type document struct {
	line int
	text []byte
}

// split cuts a file at its document separators and remembers where each began.
func split(file []byte) []document {
	var docs []document
	current := document{line: 1}
	line := 0
	for text := range bytes.Lines(file) {
		line++
		trimmed := bytes.TrimRight(text, " \t\r\n")
		if bytes.Equal(trimmed, []byte("---")) || bytes.HasPrefix(trimmed, []byte("--- ")) {
			docs = append(docs, current)
			current = document{line: line + 1}
			continue
		}
		current.text = append(current.text, text...)
	}
	return append(docs, current)
}

// decoded is what one file says.
type decoded struct {
	objects  []entry
	warnings []string
}

type entry struct {
	kind kind
	name string
	key  Key
	obj  metav1.Object
	line int
}

// decode reads a file. check may refuse an object, with what the lab knows.
func decode(path string, file []byte, check func(metav1.Object) error) (decoded, error) {
	var out decoded
	for _, doc := range split(file) {
		if err := out.document(path, doc, check); err != nil {
			return decoded{}, err
		}
	}
	return out, nil
}

func (d *decoded) document(path string, doc document, check func(metav1.Object) error) error {
	at := func(err error) error { return fmt.Errorf("%s:%d: %w", path, doc.line, err) }
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Items           []any `json:"items"`
	}
	if err := yaml.Unmarshal(doc.text, &head); err != nil {
		return at(err)
	}
	if head.Kind == "List" {
		for _, item := range head.Items {
			text, err := yaml.Marshal(item)
			if err != nil {
				return at(err)
			}
			if err := d.document(path, document{line: doc.line, text: text}, check); err != nil {
				return err
			}
		}
		return nil
	}
	group, _, found := strings.Cut(head.APIVersion, "/")
	if !found {
		group = ""
	}
	id := [2]string{group, head.Kind}
	k, ours := kinds[id]
	if !ours {
		if notRun[id] {
			d.warnings = append(d.warnings, fmt.Sprintf("%s:%d: the lab runs Pods and Deployments; this %s is left alone", path, doc.line, head.Kind))
		}
		return nil
	}
	obj := k.make()
	if err := yaml.Unmarshal(doc.text, obj); err != nil {
		return at(fmt.Errorf("%s: %w", head.Kind, err))
	}
	if obj.GetName() == "" {
		return at(fmt.Errorf("this %s has no metadata.name", head.Kind))
	}
	if problems := validation.IsDNS1123Subdomain(obj.GetName()); len(problems) > 0 {
		return at(fmt.Errorf("%s %q: %s", head.Kind, obj.GetName(), problems[0]))
	}
	switch {
	case k.clusterWide:
		obj.SetNamespace("")
	case obj.GetNamespace() == "":
		obj.SetNamespace(corev1.NamespaceDefault)
	}
	if check != nil {
		if err := check(obj); err != nil {
			return at(fmt.Errorf("%s %s: %w", head.Kind, KeyOf(obj), err))
		}
	}
	d.objects = append(d.objects, entry{kind: k, name: head.Kind, key: KeyOf(obj), obj: obj, line: doc.line})
	return nil
}
