package source

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of one file. They are far above what a person writes and far below
// what would hurt.
const (
	maxFileSize = 8 << 20
	maxNodes    = 500_000 // after aliases are expanded
	maxDepth    = 100
)

// document is one YAML document. Lines in its nodes count from the file's start.
type document struct {
	node *yaml.Node // a mapping, nil where broken
	line int        // of the first content
	text []byte
	err  error // why it could not be parsed
}

// splitDocuments parses a file. A document that cannot be parsed does not take
// the others along. Documents of comments alone are left out.
func splitDocuments(data []byte) []document {
	var docs []document
	for _, p := range splitText(data) {
		docs = append(docs, parsePiece(p.text, p.line)...)
	}
	return docs
}

type piece struct {
	text []byte
	line int // number of lines before the text
}

// splitText cuts before each line "---", alone or before a blank: YAML allows
// such a line nowhere else.
func splitText(data []byte) []piece {
	var pieces []piece
	start, startLine, line := 0, 0, 0
	for pos := 0; pos < len(data); line++ {
		if pos > start && separator(data[pos:]) {
			pieces = append(pieces, piece{data[start:pos], startLine})
			start, startLine = pos, line
		}
		next := bytes.IndexByte(data[pos:], '\n')
		if next < 0 {
			break
		}
		pos += next + 1
	}
	return append(pieces, piece{data[start:], startLine})
}

func separator(rest []byte) bool {
	after, ok := bytes.CutPrefix(rest, []byte("---"))
	return ok && (len(after) == 0 || bytes.IndexByte([]byte(" \t\r\n"), after[0]) >= 0)
}

func parsePiece(text []byte, line int) []document {
	var docs []document
	dec := yaml.NewDecoder(bytes.NewReader(text))
	for {
		var root yaml.Node
		err := decodeNode(dec, &root)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			at, err := shiftError(err, line)
			return append(docs, document{line: at, text: text, err: err})
		}
		if len(root.Content) == 0 {
			continue
		}
		node := root.Content[0]
		if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
			continue
		}
		shiftLines(node, line)
		doc := document{node: node, line: node.Line, text: text}
		if node.Kind != yaml.MappingNode {
			doc.node, doc.err = nil, errors.New("this is not an object: want apiVersion, kind and metadata")
		}
		docs = append(docs, doc)
	}
}

// decodeNode turns a panic of the YAML library, which hostile text can cause,
// into an error.
func decodeNode(dec *yaml.Decoder, root *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: cannot be parsed: %v", r)
		}
	}()
	return dec.Decode(root)
}

var errorLine = regexp.MustCompile(`^yaml: line (\d+): `)

// shiftError takes the line out of a message of the YAML library.
func shiftError(err error, before int) (line int, _ error) {
	m := errorLine.FindStringSubmatch(err.Error())
	if m == nil {
		return before + 1, errors.New("not YAML: " + strings.TrimPrefix(err.Error(), "yaml: "))
	}
	n, _ := strconv.Atoi(m[1])
	return before + n, errors.New("not YAML: " + err.Error()[len(m[0]):])
}

func shiftLines(n *yaml.Node, by int) {
	n.Line += by
	for _, c := range n.Content {
		shiftLines(c, by)
	}
}

// field is the value of a mapping's key, or nil.
func field(n *yaml.Node, key string) *yaml.Node {
	n = resolve(n)
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolve(n.Content[i+1])
		}
	}
	return nil
}

func text(n *yaml.Node) string {
	if n = resolve(n); n == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

func resolve(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode; i++ {
		if i > maxDepth {
			return nil
		}
		n = n.Alias
	}
	return n
}
