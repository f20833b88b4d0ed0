// Package validate checks files of objects without a cluster, as `istioctl validate`
// does, and stricter: an unknown field is an error with its file, line and the field
// that was probably meant.
//
// For cmd/fairlead and tests.
package validate

import (
	"fmt"
	"io"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Installer checks files of the installer, such as an IstioOperator. It says of each
// finding where it is.
type Installer func(source.File) []source.Problem

// Result is what is wrong in files.
type Result struct {
	files []source.File
	// Errors keep an object from being taken; Warnings do not.
	Errors, Warnings []source.Problem
	notes            []source.Problem
}

// Files checks each file for itself. Installer may be nil.
func Files(files []source.File, installer Installer) Result {
	r := Result{files: files}
	var problems []source.Problem
	for _, f := range files {
		problems = append(problems, source.Parse([]source.File{f}, nil).Problems...)
		documents := source.Documents(f)
		if installer != nil && slices.ContainsFunc(documents, isInstallers) {
			problems = append(problems, installer(f)...)
		}
		for _, d := range documents {
			r.notes = append(r.notes, percentages(d)...)
		}
	}
	for _, p := range problems {
		switch {
		case p.NotServed && p.Ref.Group == source.GroupInstall:
		case p.Severity == source.Error && !p.NotServed:
			r.Errors = append(r.Errors, p)
		default:
			p.Severity = source.Warning
			r.Warnings = append(r.Warnings, p)
		}
	}
	return r
}

func isInstallers(d source.Document) bool { return d.Ref.Group == source.GroupInstall }

// Write says what was found: a line each, and of a file without errors that it is valid.
func (r Result) Write(out, errs io.Writer) {
	for _, p := range slices.Concat(r.Errors, r.Warnings) {
		fmt.Fprintln(errs, p)
	}
	for _, f := range r.files {
		ofFile := func(p source.Problem) bool { return p.File == f.Name }
		for _, n := range r.notes {
			if ofFile(n) {
				fmt.Fprintln(out, n)
			}
		}
		switch {
		case slices.ContainsFunc(r.Errors, ofFile):
		case f.Name == "-":
			fmt.Fprintln(out, "validation succeed")
		case slices.ContainsFunc(r.Warnings, ofFile):
			fmt.Fprintf(out, "%q has warnings\n", f.Name)
		default:
			fmt.Fprintf(out, "%q is valid\n", f.Name)
		}
	}
}

// Err is an error where there is one in the files.
func (r Result) Err() error {
	switch len(r.Errors) {
	case 0:
		return nil
	case 1:
		return fmt.Errorf("1 error occurred in %d files", len(r.files))
	}
	return fmt.Errorf("%d errors occurred in %d files", len(r.Errors), len(r.files))
}
