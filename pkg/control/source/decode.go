package source

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-mesh/fairlead/pkg/suggest"
)

// parsed is what one text of one file says, or of one object that is stored in an API
// server.
type parsed struct {
	stored   bool
	objects  []object
	mesh     []meshConfig
	refused  []Refused
	problems []Problem
}

// broken tells whether something in the text was not taken, so that what the
// file said before stays in force.
func (p *parsed) broken() bool {
	return slices.ContainsFunc(p.problems, func(x Problem) bool { return x.Severity == Error && !x.NotServed })
}

// parseFile decodes all documents of a file. It never fails as a whole.
func parseFile(file string, data []byte) *parsed {
	p := &parsed{}
	if len(data) > maxFileSize {
		p.fail(Position{file, 1}, Ref{}, "", fmt.Sprintf("the file is larger than %d MiB", maxFileSize>>20))
		return p
	}
	for _, doc := range splitDocuments(data) {
		p.document(file, doc)
	}
	return p
}

func (p *parsed) fail(pos Position, ref Ref, field, message string) {
	p.problems = append(p.problems, Problem{Position: pos, Severity: Error, Ref: ref, Field: field, Message: message})
}

func (p *parsed) warn(pos Position, ref Ref, field, message string) {
	p.problems = append(p.problems, Problem{Position: pos, Severity: Warning, Ref: ref, Field: field, Message: message})
}

func (p *parsed) document(file string, doc document) {
	pos := Position{file, doc.line}
	if doc.err != nil {
		p.fail(pos, Ref{}, "", doc.err.Error())
		p.refuseText(pos, doc.text, doc.err)
		return
	}
	node, err := expand(doc.node)
	if err != nil {
		pos.Line = lineOf(err, doc.line)
		p.fail(pos, Ref{}, "", err.Error())
		p.refuseText(pos, doc.text, err)
		return
	}
	p.item(file, node)
}

// item decodes one object, or the items of a list.
func (p *parsed) item(file string, node *yaml.Node) {
	eachItem(node, "", "", func(node *yaml.Node, version, kindName string) {
		pos := Position{file, node.Line}
		if node.Kind != yaml.MappingNode {
			p.fail(pos, Ref{}, "", "this is not an object: want apiVersion, kind and metadata")
			return
		}
		p.object(pos, node, version, kindName)
	})
}

// eachItem calls f with an object, or with each of a list. The version and kind that
// a typed list implies are passed on.
func eachItem(node *yaml.Node, version, kindName string, f func(node *yaml.Node, version, kindName string)) {
	if v := text(field(node, "apiVersion")); v != "" {
		version = v
	}
	if k := text(field(node, "kind")); k != "" {
		kindName = k
	}
	items := field(node, "items")
	if !strings.HasSuffix(kindName, "List") || items == nil || items.Kind != yaml.SequenceNode {
		f(node, version, kindName)
		return
	}
	inner := strings.TrimSuffix(kindName, "List")
	if inner == "" {
		version = ""
	}
	for _, i := range items.Content {
		eachItem(i, version, inner, f)
	}
}

// refOf names an object; of a kind that has namespaces, one that says none is in default.
func refOf(node *yaml.Node, version, kindName string) Ref {
	group, _ := splitVersion(version)
	meta := field(node, "metadata")
	ref := Ref{Group: group, Kind: kindName, Namespace: text(field(meta, "namespace")), Name: text(field(meta, "name"))}
	if k, known := kinds[groupKind{group, kindName}]; known && !k.clusterWide && ref.Namespace == "" {
		ref.Namespace = metav1.NamespaceDefault
	}
	return ref
}

func (p *parsed) object(pos Position, node *yaml.Node, version, kindName string) {
	group, short := splitVersion(version)
	ref := refOf(node, version, kindName)
	gk := groupKind{group, kindName}
	k, known := kinds[gk]
	if k.installer {
		p.problems = append(p.problems, Problem{Position: pos, Severity: Warning, Ref: ref, NotServed: true,
			Message: "is read by `fairlead install -f`: here it has no effect"})
		return
	}
	c := &checker{}
	switch {
	case version == "" || kindName == "":
		c.add(node, "", "an object needs apiVersion and kind")
	case !known:
		c.findings = append(c.findings, finding{line: node.Line, message: unknownKind(gk)})
	case !slices.Contains(k.versions, short):
		c.add(node, "apiVersion", "%s %q is not known: use %s", kindName, version, apiVersion(group, k.versions[0]))
	default:
		c.head(node, k, ref)
	}
	var value metav1.Object
	if known && !c.failed(k) {
		value = p.decode(c, pos, node, gk, k, ref)
	}
	p.conclude(c, pos, node, gk, k, ref, value)
}

func splitVersion(apiVersion string) (group, version string) {
	if g, v, ok := strings.Cut(apiVersion, "/"); ok {
		return g, v
	}
	return "", apiVersion
}

func unknownKind(gk groupKind) string {
	for other := range kinds {
		if other.kind == gk.kind {
			return fmt.Sprintf("kind %s is not known in the group %q: is its apiVersion %s?", gk.kind, gk.group, groupsOf(gk.kind))
		}
	}
	return fmt.Sprintf("kind %q of the group %q is not known%s", gk.kind, gk.group, suggest.DidYouMean(gk.kind, kindNames()))
}

func groupsOf(name string) string {
	var versions []string
	for gk, k := range kinds {
		if gk.kind == name {
			versions = append(versions, apiVersion(gk.group, k.versions[0]))
		}
	}
	slices.Sort(versions)
	return strings.Join(versions, " or ")
}

// failed tells whether a finding keeps the object from being taken.
func (c *checker) failed(k kind) bool {
	return slices.ContainsFunc(c.findings, func(f finding) bool { return !f.warning && (!f.unknown || !k.lenient) })
}

var metaType = reflect.TypeFor[metav1.ObjectMeta]()

// head checks the fields that all kinds have, and the body by its schema.
func (c *checker) head(node *yaml.Node, k kind, ref Ref) {
	meta := field(node, "metadata")
	if meta == nil {
		c.add(node, "metadata", "an object needs metadata with a name")
		return
	}
	switch {
	case k.spec != nil:
		c.istioBody(node, k)
	case k.object != nil:
		c.structure(node, k.object, "")
	default:
		c.structure(meta, metaType, "metadata")
	}
	if ref.Name == "" {
		c.add(meta, "metadata.name", "an object needs a name")
	} else if errs := validation.IsDNS1123Subdomain(ref.Name); len(errs) > 0 && !strings.HasPrefix(ref.Group, "rbac.") {
		c.add(meta, "metadata.name", "%q: %s", ref.Name, errs[0])
	}
	if ref.Namespace != "" {
		if errs := validation.IsDNS1123Label(ref.Namespace); len(errs) > 0 {
			c.add(meta, "metadata.namespace", "%q: %s", ref.Namespace, errs[0])
		}
	}
}

var istioFields = []string{"apiVersion", "kind", "metadata", "spec", "status"}

func (c *checker) istioBody(node *yaml.Node, k kind) {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		switch key.Value {
		case "metadata":
			c.structure(value, metaType, "metadata")
		case "spec":
			c.message(value, k.spec, "spec")
		case "apiVersion", "kind", "status":
		default:
			c.unknown(key, "", key.Value, istioFields)
		}
	}
}

// decode makes the Go value of a checked object and looks at its meaning.
func (p *parsed) decode(c *checker, pos Position, node *yaml.Node, gk groupKind, k kind, ref Ref) metav1.Object {
	if !k.served {
		if k.spec != nil {
			c.unservedMeaning(node, k.spec)
		}
		return nil
	}
	raw, err := toJSON(node)
	if err != nil {
		c.findings = append(c.findings, finding{line: lineOf(err, node.Line), message: err.Error()})
		return nil
	}
	value, err := unmarshal(raw, k)
	if err != nil {
		c.add(node, "", "cannot be decoded: %v", err)
		return nil
	}
	value.SetNamespace(ref.Namespace)
	value.SetManagedFields(nil)
	if gk == (groupKind{"", "ConfigMap"}) {
		p.meshConfigMap(c, pos, node, ref)
		return nil
	}
	c.meaning(node, value)
	return value
}

func unmarshal(raw []byte, k kind) (metav1.Object, error) {
	target := reflect.New(k.object).Interface()
	var err error
	if k.spec != nil {
		err = json.Unmarshal(raw, target) // the specs decode themselves, as protobuf
	} else {
		err = kjson.Unmarshal(raw, target)
	}
	if err != nil {
		return nil, err
	}
	return target.(metav1.Object), nil
}

// conclude files what was found.
func (p *parsed) conclude(c *checker, pos Position, node *yaml.Node, gk groupKind, k kind, ref Ref, value metav1.Object) {
	slices.SortStableFunc(c.findings, func(a, b finding) int { return cmp.Or(cmp.Compare(a.line, b.line), cmp.Compare(a.field, b.field)) })
	for _, f := range c.findings {
		at := Position{pos.File, f.line}
		if f.unknown && k.lenient {
			p.warn(at, ref, f.field, f.message+" (it is left out)")
			continue
		}
		if f.warning {
			p.warn(at, ref, f.field, f.message)
			continue
		}
		p.problems = append(p.problems, Problem{Position: at, Severity: Error, Ref: ref, Field: f.field, Message: f.message, Unknown: f.unknown})
	}
	switch {
	case c.failed(k):
		if gk.security() {
			p.refuse(pos, node, ref, c.reason())
		}
	case gk.security() && !k.served:
		p.problems = append(p.problems, Problem{Position: pos, Severity: Error, Ref: ref, NotServed: true,
			Message: "refused: this control plane does not serve " + ref.Kind + ", so nothing enforces it"})
	case !k.served && k.object != nil || !k.served && k.spec != nil:
		p.problems = append(p.problems, Problem{Position: pos, Severity: Warning, Ref: ref, NotServed: true,
			Message: "this control plane does not serve " + ref.Kind + ": it has no effect"})
	case value != nil:
		p.objects = append(p.objects, object{ref, pos, value})
	}
}

// reason is the first finding that is not a warning.
func (c *checker) reason() string {
	for _, f := range c.findings {
		switch {
		case f.warning:
		case f.field == "":
			return f.message
		default:
			return f.field + ": " + f.message
		}
	}
	return ""
}
