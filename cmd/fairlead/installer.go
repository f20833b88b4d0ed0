package main

import (
	"bytes"
	"errors"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/install/operator"
)

// checkInstaller says what is wrong with the installer's objects in a file, as an
// installation with it would.
func checkInstaller(f source.File) (out []source.Problem) {
	_, err := operator.Read([]source.File{{Name: f.Name, Data: installersAlone(f.Data)}}, nil)
	if err == nil {
		return nil
	}
	ref := source.Ref{Group: source.GroupInstall, Kind: "IstioOperator"}
	var all operator.Errors
	if !errors.As(err, &all) {
		return []source.Problem{{Position: source.Position{File: f.Name, Line: 1}, Severity: source.Error, Ref: ref, Message: err.Error()}}
	}
	for _, e := range all {
		out = append(out, source.Problem{Position: source.Position{File: f.Name, Line: e.Line}, Severity: source.Error, Ref: ref, Field: e.Field, Message: e.Message})
	}
	return out
}

// installersAlone is a file with the lines of other objects empty, so that lines count
// the same.
func installersAlone(data []byte) []byte {
	lines := bytes.SplitAfter(data, []byte("\n"))
	var out []byte
	for start := 0; start < len(lines); {
		end := start + 1
		for end < len(lines) && !bytes.HasPrefix(lines[end], []byte("---")) {
			end++
		}
		piece := bytes.Join(lines[start:end], nil)
		documents := source.Documents(source.File{Name: "-", Data: piece})
		if slices.ContainsFunc(documents, func(d source.Document) bool { return d.Ref.Group != source.GroupInstall }) || len(documents) == 0 {
			piece = bytes.Repeat([]byte("\n"), bytes.Count(piece, []byte("\n")))
		}
		out, start = append(out, piece...), end
	}
	return out
}
