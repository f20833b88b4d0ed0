package waypoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

// table has a row for each waypoint; one of all namespaces says first in which it is.
type table struct {
	*tabwriter.Writer
	all bool
}

func newTable(out io.Writer, namespace, head string) table {
	t := table{tabwriter.NewWriter(out, 0, 8, 5, ' ', 0), namespace == ""}
	t.row("NAMESPACE", head)
	return t
}

func (t table) row(namespace, rest string) {
	if t.all {
		rest = namespace + "\t" + rest
	}
	fmt.Fprintln(t, rest)
}

// shown are a namespace's waypoints, or all with ""; where there are none, it is said.
func shown(ctx context.Context, c *kube.Client, out io.Writer, namespace string) ([]*unstructured.Unstructured, error) {
	all, err := waypoints(ctx, c, namespace, "")
	if err == nil && len(all) == 0 {
		fmt.Fprintln(out, "No waypoints found.")
	}
	return all, err
}

// List writes a namespace's waypoints, or all with "", and whether they are programmed.
func List(ctx context.Context, c *kube.Client, out io.Writer, namespace string) error {
	all, err := shown(ctx, c, out, namespace)
	if err != nil || len(all) == 0 {
		return err
	}
	w := newTable(out, namespace, "NAME\tREVISION\tTRAFFIC TYPE\tPROGRAMMED")
	for _, g := range all {
		labels := g.GetLabels()
		w.row(g.GetNamespace(), fmt.Sprintf("%s\t%s\t%s\t%s", g.GetName(), cmp.Or(labels[labelRevision], "default"), cmp.Or(labels[labelFor], "service"),
			cmp.Or(string(kube.Condition(g, programmed).Status), "False")))
	}
	return w.Flush()
}

// Status writes what a namespace's waypoints are waiting for, or all with "". With
// wait, it waits for each until it is programmed, for timeout at most.
func Status(ctx context.Context, c *kube.Client, out io.Writer, namespace string, wait bool, timeout time.Duration) error {
	all, err := shown(ctx, c, out, namespace)
	if err != nil || len(all) == 0 {
		return err
	}
	w := newTable(out, namespace, "NAME\tSTATUS\tTYPE\tREASON\tMESSAGE")
	var late error
	for _, g := range all {
		if wait {
			late = errors.Join(late, await(ctx, c, g.GetNamespace(), g.GetName(), timeout))
		}
		now, err := c.Get(ctx, kube.Gateway, g.GetNamespace(), g.GetName())
		if err != nil {
			return err
		}
		if now == nil {
			continue // deleted in between
		}
		state := kube.Condition(now, programmed)
		w.row(g.GetNamespace(), fmt.Sprintf("%s\t%s\t%s\t%s\t%s", g.GetName(), cmp.Or(string(state.Status), "Unknown"), cmp.Or(state.Type, programmed), state.Reason, state.Message))
	}
	return errors.Join(w.Flush(), late)
}

// Delete deletes waypoints of a namespace: those named, or with no names all, of a
// revision if that is not empty.
func Delete(ctx context.Context, c *kube.Client, out io.Writer, namespace string, names []string, revision string) error {
	labels := ""
	if revision != "" {
		labels = labelRevision + "=" + revision
	}
	all, err := waypoints(ctx, c, namespace, labels)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	every := len(names) == 0
	for _, g := range all {
		there[g.GetName()] = true
		if every {
			names = append(names, g.GetName())
		}
	}
	var failed error
	for _, name := range names {
		if !there[name] {
			fmt.Fprintf(out, "waypoint %s/%s not found\n", namespace, name)
			continue
		}
		resource, err := c.Resource(kube.Gateway.WithVersion(""), namespace)
		if err != nil {
			return err
		}
		switch err := resource.Delete(ctx, name, metav1.DeleteOptions{}); {
		case apierrors.IsNotFound(err):
			fmt.Fprintf(out, "waypoint %s/%s not found\n", namespace, name)
		case err != nil:
			failed = errors.Join(failed, fmt.Errorf("delete waypoint %s/%s: %w", namespace, name, err))
		default:
			fmt.Fprintf(out, "waypoint %s/%s deleted\n", namespace, name)
		}
	}
	return failed
}
