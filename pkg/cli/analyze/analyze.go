package analyze

import (
	"fmt"
	"slices"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Input is what is looked at.
type Input struct {
	// Files are what the user has in files; their objects take the place of a cluster's.
	Files []source.File
	// Stored are the cluster's objects, one in each; the names do not matter.
	Stored []source.File
	// Whole says that all objects of the mesh are among these, so that what is named and
	// not there is missing. Files alone are seldom all.
	Whole bool
	// Installer checks the installer's files; or nil.
	Installer func(source.File) []source.Problem
}

// analyzers each look for kinds of findings that belong together.
var analyzers = []struct {
	name string
	run  func(*world)
}{
	{"schema", (*world).schema},
	{"pruned", (*world).pruned},
	{"conditions", (*world).conditions},
	{"namespace", (*world).namespaces},
	{"workload", (*world).annotations},
	{"service", (*world).services},
	{"virtualservice", (*world).virtualServices},
	{"destinationrule", (*world).destinationRules},
	{"gateway", (*world).gateways},
	{"authorization", (*world).authorization},
	{"authentication", (*world).authentication},
	{"telemetry", (*world).telemetry},
	{"sidecar", (*world).sidecars},
	{"envoyfilter", (*world).envoyFilters},
	{"stats", (*world).stats},
}

// Names are the analyzers'.
func Names() (out []string) {
	for _, a := range analyzers {
		out = append(out, a.name)
	}
	return out
}

// Run looks at everything, or with only at what those analyzers look at.
func Run(in Input, only ...string) ([]Message, error) {
	for _, name := range only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("no analyzer is named %q: want some of %v", name, Names())
		}
	}
	w, err := newWorld(in, nil)
	if err != nil {
		return nil, err
	}
	w.run(only)
	found := w.found
	if len(w.twice) > 0 {
		// Which of two objects of one name will be applied last is not known here, so
		// each is looked at.
		again, err := newWorld(in, w.twice)
		if err != nil {
			return nil, err
		}
		again.run(only)
		found = append(found, again.found...)
	}
	slices.SortFunc(found, Message.compare)
	return slices.Compact(found), nil
}

func (w *world) run(only []string) {
	for _, a := range analyzers {
		if len(only) == 0 || slices.Contains(only, a.name) {
			a.run(w)
		}
	}
}
