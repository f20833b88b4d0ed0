package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/install/unclean"
	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/run"
)

// withdrawal deletes the agents' DaemonSet while the agents may still ask for it, and
// waits until each has cleaned its node and ended.
type withdrawal struct {
	api              *kube.Client
	namespace, image string
	look             time.Duration // between two looks at the pods
	out              io.Writer
}

// What is asked, within the agents' namespace.
const (
	agentSet  = "ztunnel"
	agentPods = "app=" + agentSet
)

// run returns when the agents are gone, an error naming the nodes where ctx ends first. It
// does not wait for nodes without a ready agent, and names them with what to run there.
func (w *withdrawal) run(ctx context.Context) error {
	pods, err := w.pods(ctx)
	if err != nil {
		return fmt.Errorf("which agents run: %w", err)
	}
	ready := map[string]bool{} // by node
	for _, p := range pods {
		if p.Spec.NodeName != "" {
			ready[p.Spec.NodeName] = ready[p.Spec.NodeName] || p.Ready()
		}
	}
	var left []string
	for node, ok := range ready {
		if !ok {
			left = append(left, node)
		}
	}
	slices.Sort(left)
	err = w.api.Delete(ctx, "/apis/apps/v1/namespaces/"+w.namespace+"/daemonsets/"+agentSet)
	if err != nil && !kube.IsNoSuch(err, "daemonsets", agentSet) {
		return fmt.Errorf("delete the agents' DaemonSet: %w", err)
	}
	if err := w.gone(ctx, left); err != nil {
		return err
	}
	fmt.Fprintf(w.out, "the agents of %d nodes have cleaned them and are gone\n", len(ready)-len(left))
	if len(left) > 0 {
		fmt.Fprintln(w.out, &unclean.Error{Nodes: left, Image: w.image})
	}
	return nil
}

// gone waits until no agent runs on a node that is not in left.
func (w *withdrawal) gone(ctx context.Context, left []string) error {
	tick := time.NewTicker(w.look)
	defer tick.Stop()
	var on []string
	for {
		pods, err := w.pods(ctx)
		if err == nil {
			on = nil
			for _, p := range pods {
				if p.Spec.NodeName != "" && !slices.Contains(left, p.Spec.NodeName) {
					on = append(on, p.Spec.NodeName)
				}
			}
			if len(on) == 0 {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			slices.Sort(on)
			return errors.Join(fmt.Errorf("agents still run on these nodes: %s. Nothing else was deleted: try again", strings.Join(slices.Compact(on), ", ")), err)
		case <-tick.C:
		}
	}
}

// pods are the agents'.
func (w *withdrawal) pods(ctx context.Context) ([]kube.Pod, error) {
	var out []kube.Pod
	query := url.Values{"labelSelector": {agentPods}, "limit": {"200"}}
	for {
		var page struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []kube.Pod `json:"items"`
		}
		if err := w.api.Get(ctx, "/api/v1/namespaces/"+w.namespace+"/pods?"+query.Encode(), &page); err != nil {
			return nil, err
		}
		if out = append(out, page.Items...); page.Metadata.Continue == "" {
			return out, nil
		}
		query.Set("continue", page.Metadata.Continue)
	}
}

func withdraw() *cobra.Command {
	w := withdrawal{look: time.Second}
	var patience time.Duration
	cmd := &cobra.Command{
		Use:   "withdraw",
		Short: "Take all agents out of the cluster, each after it has cleaned its node",
		Long: `Deletes the agents' DaemonSet, and waits until each agent has let its pods go, cleaned
its node and ended. It is run in a pod by the chart's hook before Helm deletes the
rights that agents do this with. Nodes without a ready agent are named, with the command to run there.`,
		Example: `  node-agent withdraw --namespace istio-system --image IMAGE-OF-THE-AGENT`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			how, err := kube.InCluster("", kube.CredentialsDir)
			if err != nil {
				return run.Usage(err)
			}
			if w.api, err = kube.New(how); err != nil {
				return run.Usage(err)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), patience)
			defer cancel()
			w.out = cmd.OutOrStdout()
			return w.run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&w.namespace, "namespace", "istio-system", "where the DaemonSet is")
	f.StringVar(&w.image, "image", "IMAGE-OF-THE-AGENT", "the agent's image, for the commands that are named")
	f.DurationVar(&patience, "timeout", 4*time.Minute, "how long agents may take")
	return cmd
}
