package source

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
)

// RootNamespace is where the ConfigMap istio is looked for. Policies there hold
// for the mesh, unless the mesh configuration names another root namespace.
const RootNamespace = "istio-system"

// meshConfig is what one ConfigMap istio says.
type meshConfig struct {
	ref      Ref
	pos      Position
	mesh     *meshv1alpha1.MeshConfig
	settings Settings
}

// DefaultMesh is the mesh configuration where the key mesh says nothing.
func DefaultMesh() *meshv1alpha1.MeshConfig {
	return &meshv1alpha1.MeshConfig{RootNamespace: RootNamespace, TrustDomain: "cluster.local"}
}

// servedMesh are the keys of the mesh configuration that have an effect here.
var servedMesh = []string{"rootNamespace", "trustDomain", "accessLogFile", "accessLogFormat", "accessLogEncoding", "extensionProviders", "defaultProviders"}

// discoverySelectors is another, where objects come from an API server.
const discoverySelectors = "discoverySelectors"

func (p *parsed) meshConfigMap(c *checker, pos Position, node *yaml.Node, ref Ref) {
	if ref.Name != "istio" || ref.Namespace != RootNamespace {
		return
	}
	m := meshConfig{ref: ref, pos: pos, mesh: DefaultMesh(), settings: DefaultSettings()}
	data := field(node, "data")
	if inner := c.innerYAML(data, "mesh"); inner != nil {
		c.message(inner, m.mesh.ProtoReflect().Descriptor(), "data[mesh]")
		if len(c.findings) == 0 {
			p.warnUnservedMesh(pos, ref, inner)
			c.fill(inner, "data[mesh]", m.mesh)
			m.mesh.RootNamespace = cmp.Or(m.mesh.RootNamespace, RootNamespace)
			m.mesh.TrustDomain = cmp.Or(m.mesh.TrustDomain, DefaultMesh().TrustDomain)
		}
	}
	if inner := c.innerYAML(data, "fairlead"); inner != nil {
		c.structure(inner, reflect.TypeFor[Settings](), "data[fairlead]")
		if len(c.findings) == 0 {
			c.fill(inner, "data[fairlead]", &m.settings)
		}
		if _, _, err := m.settings.AutoAllocate.Prefixes(); err != nil {
			c.add(inner, "data[fairlead]", "%v", err)
		}
		if o := m.settings.OtherProtocols; o != "allow" && o != "deny" {
			c.add(inner, "data[fairlead].otherProtocols", "%q: want allow or deny", o)
		}
	}
	if c.failed(kind{}) {
		for i := range c.findings {
			c.findings[i].unknown = false // strict, though a ConfigMap is lenient
		}
		return
	}
	p.mesh = append(p.mesh, m)
}

func (p *parsed) warnUnservedMesh(pos Position, ref Ref, inner *yaml.Node) {
	var keys []string
	for i := 0; i+1 < len(inner.Content); i += 2 {
		if key := inner.Content[i].Value; !slices.Contains(servedMesh, key) && (key != discoverySelectors || !p.stored) {
			keys = append(keys, key)
		}
	}
	if len(keys) > 0 {
		p.problems = append(p.problems, Problem{Position: pos, Severity: Warning, Ref: ref, Field: "data[mesh]", NotServed: true,
			Message: "these keys have no effect here: " + strings.Join(keys, ", ")})
	}
}

// innerYAML is the YAML within a key of a ConfigMap, its lines counted in the file.
func (c *checker) innerYAML(data *yaml.Node, key string) *yaml.Node {
	value := field(data, key)
	if value == nil || value.Kind != yaml.ScalarNode {
		return nil
	}
	before := value.Line - 1
	if value.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		before = value.Line
	}
	docs := parsePiece([]byte(value.Value), before)
	if len(docs) == 0 {
		return nil
	}
	at := "data[" + key + "]"
	if err := docs[0].err; err != nil {
		c.findings = append(c.findings, finding{line: docs[0].line, field: at, message: err.Error()})
		return nil
	}
	inner, err := expand(docs[0].node)
	if err != nil {
		c.findings = append(c.findings, finding{line: lineOf(err, docs[0].line), field: at, message: err.Error()})
		return nil
	}
	if len(docs) > 1 {
		c.findings = append(c.findings, finding{line: docs[1].line, field: at, message: "one YAML document is wanted here, and there are several"})
	}
	return inner
}

// fill decodes a checked node over what target holds.
func (c *checker) fill(n *yaml.Node, path string, target any) {
	raw, err := toJSON(n)
	if err == nil {
		err = json.Unmarshal(raw, target)
	}
	if err != nil {
		c.findings = append(c.findings, finding{line: lineOf(err, n.Line), field: path, message: fmt.Sprintf("cannot be decoded: %v", err)})
	}
}
