package source

import (
	"errors"
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reading is what one object says that an API server holds.
type Reading struct {
	// Object is the object, or nil: it was not taken as it is, or is the mesh's
	// configuration.
	Object metav1.Object
	// Mesh and Settings are what the ConfigMap istio says; Mesh is nil of another object.
	Mesh     *meshv1alpha1.MeshConfig
	Settings Settings
	// Refused is a security object that is wrong, or right and not served: what it
	// selects must be denied, unless an earlier form of it is in force. Else nil.
	Refused  *Refused
	Problems []Problem
}

// Read decodes one object, in JSON, with all the checks that files get. It never
// fails as a whole: what is wrong are problems, without a position. The reference is
// the object's, for where its text cannot even be parsed.
func Read(ref Ref, text []byte) Reading {
	node, err := parseObject(text)
	if err != nil {
		r := Reading{Problems: []Problem{{Severity: Error, Ref: ref, Message: err.Error()}}}
		if (groupKind{ref.Group, ref.Kind}).security() {
			r.Refused = &Refused{Ref: ref, Reason: err.Error()}
		}
		return r
	}
	p := &parsed{stored: true}
	p.item("", node)
	var r Reading
	if len(p.objects) > 0 {
		r.Object = p.objects[0].value
	}
	if len(p.mesh) > 0 {
		r.Mesh, r.Settings = p.mesh[0].mesh, p.mesh[0].settings
	}
	// An API server has taken it already, so that the one who wrote it relies on it.
	for _, problem := range p.problems {
		if problem.NotServed && (groupKind{problem.Ref.Group, problem.Ref.Kind}).security() && len(p.refused) == 0 {
			p.refuse(Position{}, node, problem.Ref, problem.Message)
		}
	}
	if len(p.refused) > 0 {
		r.Refused = &p.refused[0]
		r.Refused.Position = Position{}
	}
	r.Problems = p.problems
	for i := range r.Problems {
		r.Problems[i].Position = Position{}
	}
	return r
}

func parseObject(text []byte) (*yaml.Node, error) {
	docs := parsePiece(text, 0)
	if len(docs) != 1 {
		return nil, errors.New("this is not one object")
	}
	if docs[0].err != nil {
		return nil, docs[0].err
	}
	return expand(docs[0].node)
}

// Check looks at the meaning of an object that an API server has decoded. An object
// with a problem that is an error must not be taken.
func Check(group, kindName string, object metav1.Object) []Problem {
	c := &checker{}
	c.meaning(&yaml.Node{}, object)
	ref := Ref{Group: group, Kind: kindName, Namespace: object.GetNamespace(), Name: object.GetName()}
	var out []Problem
	for _, f := range c.findings {
		severity := Error
		if f.warning {
			severity = Warning
		}
		out = append(out, Problem{Severity: severity, Ref: ref, Field: f.field, Message: f.message})
	}
	return out
}

// Failed tells whether a problem of those keeps an object from being taken.
func Failed(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error && !p.NotServed })
}

// Versions are those of a kind that can be read, the best first.
func Versions(group, kindName string) []string {
	k, known := kinds[groupKind{group, kindName}]
	if !known {
		panic(fmt.Sprintf("source: the kind %s of %q is not known", kindName, group)) // a name in this program is wrong
	}
	return slices.Clone(k.versions)
}
