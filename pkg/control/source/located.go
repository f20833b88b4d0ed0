package source

import (
	"encoding/json"

	"go.yaml.in/yaml/v3"
)

// Document is one object of a file as it is written, of any kind, also of one that is
// not known or that is wrong.
type Document struct {
	Ref        Ref
	APIVersion string
	Position
	node *yaml.Node
}

// Documents are the objects of a file, those of lists each. What is no object is left
// out: [Parse] says what is wrong with it.
func Documents(f File) []Document {
	if len(f.Data) > maxFileSize {
		return nil
	}
	var out []Document
	for _, doc := range splitDocuments(f.Data) {
		if doc.err != nil {
			continue
		}
		node, err := expand(doc.node)
		if err != nil {
			continue
		}
		eachItem(node, "", "", func(node *yaml.Node, version, kindName string) {
			if node.Kind == yaml.MappingNode {
				out = append(out, Document{refOf(node, version, kindName), version, Position{f.Name, node.Line}, node})
			}
		})
	}
	return out
}

// Line is where a field is written, like "spec.rules[0].from", or as much of the path
// as there is.
func (d Document) Line(field string) int { return lineOfPath(d.node, field) }

// Value is the object as JSON decodes it into an any; nil where it cannot be JSON.
func (d Document) Value() map[string]any {
	raw, err := toJSON(d.node)
	if err != nil {
		return nil
	}
	var out map[string]any
	if json.Unmarshal(raw, &out) != nil {
		return nil
	}
	return out
}
