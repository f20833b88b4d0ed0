// Package tag answers for revision tags. With sidecars a tag chooses which control plane
// injects and configures a namespace's pods; here there is one control plane, and a newer
// one takes its place while the mesh runs, so a tag chooses nothing.
//
// For cmd/fairlead and tests.
package tag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// Revision is the one that there is.
const Revision = "default"

// label is that by which namespaces choose a revision or a tag with Istio.
const label = "istio.io/rev"

// ErrOneRevision says why tags are not made.
var ErrOneRevision = errors.New("there is one revision, default, and nothing is injected by revision, so a tag would choose nothing: " +
	"`fairlead upgrade` replaces the control plane and the node agents while the mesh runs, and back. Namespaces that carry " + label + " keep working: the label has no effect")

// List writes the revision, and the namespaces that ask for it or for another by label.
func List(ctx context.Context, c *kube.Client, out io.Writer) error {
	all, err := c.List(ctx, kube.Namespace, "", label)
	if err != nil {
		return err
	}
	asking := map[string][]string{Revision: nil}
	for _, n := range all {
		tag := n.GetLabels()[label]
		asking[tag] = append(asking[tag], n.GetName())
	}
	w := tabwriter.NewWriter(out, 0, 8, 1, ' ', 0)
	fmt.Fprintln(w, "TAG\tREVISION\tNAMESPACES")
	for _, tag := range slices.Sorted(maps.Keys(asking)) {
		slices.Sort(asking[tag])
		fmt.Fprintf(w, "%s\t%s\t%s\n", tag, Revision, strings.Join(asking[tag], ","))
	}
	return w.Flush()
}
