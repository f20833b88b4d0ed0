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

	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
)

func table(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 8, 5, ' ', 0) }

const none = "No waypoints found."

// List writes a namespace's waypoints, or all with "", and whether they are programmed.
func List(ctx context.Context, c *kube.Client, out io.Writer, namespace string) error {
	all, err := waypoints(ctx, c, namespace, "")
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(out, none)
		return nil
	}
	w := table(out)
	if namespace == "" {
		fmt.Fprint(w, "NAMESPACE\t")
	}
	fmt.Fprintln(w, "NAME\tREVISION\tTRAFFIC TYPE\tPROGRAMMED")
	for _, g := range all {
		if namespace == "" {
			fmt.Fprint(w, g.GetNamespace()+"\t")
		}
		labels := g.GetLabels()
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", g.GetName(), cmp.Or(labels[labelRevision], "default"), cmp.Or(labels[labelFor], "service"),
			cmp.Or(string(kube.Condition(g, programmed).Status), "False"))
	}
	return w.Flush()
}

// Status writes what a namespace's waypoints are waiting for, or all with "". With
// wait, it waits for each until it is programmed, for timeout at most.
func Status(ctx context.Context, c *kube.Client, out io.Writer, namespace string, wait bool, timeout time.Duration) error {
	all, err := waypoints(ctx, c, namespace, "")
	if err != nil {
		return err
	}
	if len(all) == 0 {
		fmt.Fprintln(out, none)
		return nil
	}
	w := table(out)
	if namespace == "" {
		fmt.Fprint(w, "NAMESPACE\t")
	}
	fmt.Fprintln(w, "NAME\tSTATUS\tTYPE\tREASON\tMESSAGE")
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
		if namespace == "" {
			fmt.Fprint(w, g.GetNamespace()+"\t")
		}
		state := kube.Condition(now, programmed)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", g.GetName(), cmp.Or(string(state.Status), "Unknown"), cmp.Or(state.Type, programmed), state.Reason, state.Message)
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
