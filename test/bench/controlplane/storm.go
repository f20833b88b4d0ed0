package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

const (
	// ofStorm is how many pods change in a second, and listeners how many agents are told.
	ofStorm   = 500
	listeners = 300
)

// storm measures what many changes at once cost agents, and how soon a lone one is at
// the last of them.
func storm(ctx context.Context, o options, kube kubernetes.Interface, plane *process, agents []agent, dir string) error {
	f, err := connect(ctx, plane, agents, min(listeners, o.clients))
	if err != nil {
		return err
	}
	defer f.close()
	nodes, n := max(o.size.agents, 100), min(ofStorm, o.size.pods)
	var worst, spans []float64
	for i := range o.rounds {
		if _, err := f.settle(ctx); err != nil {
			return err
		}
		begin, done := time.Now(), make(chan error, 1)
		go func() { // who is told meanwhile does not wait for who counts
			tick := time.NewTicker(time.Second / time.Duration(n))
			defer tick.Stop()
			var group errgroup.Group
			for p := range n {
				<-tick.C
				group.Go(func() error { return setReady(ctx, kube, appPod(p, nodes), address(p, 20), i%2 == 1) })
			}
			done <- group.Wait()
		}()
		counts, err := f.settle(ctx)
		if err != nil {
			return err
		}
		if err := <-done; err != nil {
			return err
		}
		most := 0
		for _, count := range counts {
			most = max(most, count)
		}
		span := time.Since(begin) - calm
		worst, spans = append(worst, float64(most)), append(spans, milliseconds(span))
	}
	fmt.Printf("%d changes of pods: at most %.0f responses at any of %d agents (by round: %v), over %.0f ms until the last (median)\n", n, slices.Max(worst), len(f.clients), worst, measure.Median(spans))
	return lone(ctx, o, kube, plane, f, agents, dir)
}

// calm is how long nothing comes when all has come.
const calm = 3 * time.Second

// settle waits until nothing comes any more, and tells how many responses each had.
func (f *fleet) settle(ctx context.Context) (map[*client]int, error) {
	counts := map[*client]int{}
	for {
		select {
		case a := <-f.arrived:
			counts[a.client]++
		case <-time.After(calm):
			return counts, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// discover measures how soon the pods of a namespace are told of that the mesh's
// discoverySelectors come to select.
func discover(ctx context.Context, o options, kube kubernetes.Interface, plane *process, agents []agent) error {
	const label = "istio-discovery"
	maps := kube.CoreV1().ConfigMaps(system)
	mesh := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Data: map[string]string{"mesh": "discoverySelectors: [{matchLabels: {" + label + ": enabled}}]"}}
	if _, err := maps.Create(ctx, mesh, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	f, err := connect(ctx, plane, agents, 1)
	if err != nil {
		return err
	}
	defer f.close()
	set := func(value string) error {
		patch := []byte(`{"metadata":{"labels":{"` + label + `":` + value + `}}}`)
		_, err := kube.CoreV1().Namespaces().Patch(ctx, "n0", types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	}
	var took []float64
	for range o.rounds {
		if _, err := f.settle(ctx); err != nil {
			return err
		}
		begin := time.Now()
		if err := set(strconv.Quote("enabled")); err != nil {
			return err
		}
		_, last, _, err := f.wait(ctx)
		if err != nil {
			return err
		}
		took = append(took, milliseconds(last.Sub(begin)))
		if err := set("null"); err != nil {
			return err
		}
	}
	fmt.Printf("a namespace of %d pods that is discovered, from its label until an agent is told: median %.0f ms, worst of %d %.0f ms\n",
		(o.size.pods+namespaces-1)/namespaces, measure.Median(took), len(took), slices.Max(took))
	return maps.Delete(ctx, mesh.Name, metav1.DeleteOptions{})
}
