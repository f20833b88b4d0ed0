package source

import (
	"slices"

	"go.yaml.in/yaml/v3"
	meshv1alpha1 "istio.io/api/mesh/v1alpha1"
)

// Trees are the YAML documents of a file that holds other things than objects, such as
// what an installation is asked for: aliases expanded, keys that are written twice refused.
func Trees(f File) (trees []*yaml.Node, problems []Problem) {
	fail := func(line int, err error) {
		problems = append(problems, Problem{Position: Position{f.Name, line}, Severity: Error, Message: err.Error()})
	}
	for _, doc := range splitDocuments(f.Data) {
		if doc.err != nil {
			fail(doc.line, doc.err)
			continue
		}
		tree, err := expand(doc.node)
		if err != nil {
			fail(lineOf(err, doc.line), err)
			continue
		}
		trees = append(trees, tree)
	}
	return trees, problems
}

// CheckMeshConfig says what is wrong with a mesh configuration that lies at path in a
// tree, and which of its keys have no effect here. Problems have lines and no file.
func CheckMeshConfig(tree *yaml.Node, path string) (problems []Problem, unserved []string) {
	var c checker
	c.message(tree, (&meshv1alpha1.MeshConfig{}).ProtoReflect().Descriptor(), path)
	for _, f := range c.findings {
		problems = append(problems, Problem{Position: Position{Line: f.line}, Severity: Error, Field: f.field, Message: f.message})
	}
	if tree.Kind != yaml.MappingNode {
		return problems, nil
	}
	for i := 0; i+1 < len(tree.Content); i += 2 {
		if key := tree.Content[i].Value; !slices.Contains(servedMesh, key) {
			unserved = append(unserved, key)
		}
	}
	return problems, unserved
}
