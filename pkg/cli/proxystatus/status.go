// Package proxystatus shows who is connected to the control plane and how far behind, as
// `istioctl proxy-status` does: agents, waypoints and gateways, in sync, stale, or
// refusing something, with the resource and the reason.
//
// For cmd/fairlead and tests.
package proxystatus

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/pkg/cli/proxies"
	"github.com/fairlead-mesh/fairlead/pkg/control/push"
)

// Client is one proxy's connection.
type Client struct {
	push.Sync
	// ControlPlane is the pod that it is connected to.
	ControlPlane string `json:"controlPlane"`
}

// Namespace is the proxy's.
func (c Client) Namespace() string {
	namespace, _, _ := strings.Cut(c.Account, "/")
	return namespace
}

// Name is the proxy's pod and namespace, as istioctl names proxies.
func (c Client) Name() string { return c.Pod + "." + c.Namespace() }

// Ask asks every pod of the control plane, or the one replica that an address leads to.
func Ask(ctx context.Context, c *kube.Client, at *controlplane.Flags, istioNamespace string) ([]Client, error) {
	if at.Given() {
		answer, err := at.Ask(ctx, c, istioNamespace)
		if err != nil {
			return nil, err
		}
		return of(answer.Clients, answer.Identity), nil
	}
	pods, err := c.List(ctx, kube.Pod, istioNamespace, proxies.ControlPlane)
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("no pod of the control plane (%s) runs in namespace %s; %s", proxies.ControlPlane, istioNamespace, controlplane.Elsewhere)
	}
	var out []Client
	for _, p := range pods {
		answer, err := c.Fetch(ctx, "GET", p.GetNamespace(), p.GetName(), proxies.DebugPort, "/debug/syncz")
		if err != nil {
			return nil, err
		}
		clients, err := Read(answer, p.GetName())
		if err != nil {
			return nil, err
		}
		out = append(out, clients...)
	}
	return out, nil
}

// Read decodes what a pod of the control plane answers to /debug/syncz.
func Read(raw []byte, controlPlane string) ([]Client, error) {
	var all []push.Sync
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("this is not what a control plane answers to /debug/syncz: %w", err)
	}
	return of(all, controlPlane), nil
}

// of are the clients of one replica.
func of(all []push.Sync, controlPlane string) []Client {
	out := make([]Client, 0, len(all))
	for _, s := range all {
		out = append(out, Client{s, controlPlane})
	}
	return out
}

// columns are the types of resources, in the order and by the names of istioctl; those
// of node agents are ours.
var columns = []struct{ kind, title string }{
	{"clusters", "CDS"}, {"listeners", "LDS"}, {"endpoints", "EDS"}, {"routes", "RDS"}, {"addresses", "WADS"}, {"policies", "WDS"},
}

// Write writes proxies as a table, or as JSON or YAML.
func Write(out io.Writer, all []Client, format string, now time.Time) error {
	slices.SortFunc(all, func(a, b Client) int {
		return cmp.Or(strings.Compare(a.Name(), b.Name()), strings.Compare(a.ControlPlane, b.ControlPlane), strings.Compare(a.From, b.From))
	})
	switch format {
	case "", "short":
	case "json", "yaml":
		raw, err := json.MarshalIndent(all, "", "    ")
		if err == nil && format == "yaml" {
			raw, err = yaml.JSONToYAML(raw)
		}
		if err == nil {
			_, err = fmt.Fprintln(out, strings.TrimSuffix(string(raw), "\n"))
		}
		return err
	default:
		return fmt.Errorf("output format %q not supported: one of json|yaml|short", format)
	}
	w := tabwriter.NewWriter(out, 0, 8, 5, ' ', 0)
	fmt.Fprint(w, "NAME\tCLUSTER")
	for _, c := range columns {
		fmt.Fprint(w, "\t"+c.title)
	}
	fmt.Fprintln(w, "\tISTIOD\tVERSION\tNODE")
	var refused []string
	for _, c := range all {
		fmt.Fprintf(w, "%s\t%s", c.Name(), cmp.Or(c.Cluster, "Kubernetes"))
		for _, column := range columns {
			state, has := c.Types[column.kind]
			fmt.Fprint(w, "\t"+word(state, has, now))
			if len(state.Refused) > 0 {
				refused = append(refused, fmt.Sprintf("%s refuses %s %s: %s", c.Name(), column.kind, strings.Join(state.Refused, ", "), state.Nack))
			}
		}
		fmt.Fprintf(w, "\t%s\t%s\t%s\n", c.ControlPlane, cmp.Or(c.Build, c.Version, "unknown"), c.Node)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range refused {
		fmt.Fprintln(out, r)
	}
	return nil
}

// word is a state as istioctl has it, with how long it has been so.
func word(s push.TypeSync, has bool, now time.Time) string {
	since := func(word string, at time.Time) string {
		if at.IsZero() {
			return word
		}
		return fmt.Sprintf("%s (%s)", word, duration.HumanDuration(now.Sub(at)))
	}
	switch {
	case !has:
		return "IGNORED"
	case len(s.Refused) > 0:
		return "ERROR"
	case s.Behind == 0 && s.Acked == "":
		return "NOT SENT"
	case s.Behind == 0:
		return since("SYNCED", s.AckedAt)
	}
	return since("STALE", s.Since)
}
