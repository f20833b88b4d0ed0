package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// alone is where a lone change was when, in milliseconds since it was begun.
type alone struct {
	// written is when the API server had answered, and seen when a watch of this program,
	// as near to the API server as the control plane's, had its event.
	written, seen float64
	// first is when the first client had it, last when the last had acknowledged it.
	first, last float64
}

func (a alone) String() string {
	return fmt.Sprintf("%.1f (written %.1f, seen by a watch %.1f, first client %.1f)", a.last, a.written, a.seen, a.first)
}

// watcher lists and watches a kind in a namespace.
type watcher interface {
	Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error)
}

// subject is an object that changes, nothing else.
type subject struct {
	kind, name string
	in         watcher
	change     func(i int) error
}

// lone measures how soon a lone change is at the last of the clients, and where it is
// meanwhile; after each, the same bytes go to as many clients of a bare stream.
func lone(ctx context.Context, o options, kube kubernetes.Interface, plane *process, f *fleet, agents []agent, dir string) error {
	bareProcess, err := startBare(dir)
	defer bareProcess.stop()
	if err != nil {
		return err
	}
	least, err := connect(ctx, bareProcess, agents, len(f.clients))
	if err != nil {
		return err
	}
	defer least.close()
	pod := appPod(0, max(o.size.agents, 100))
	services := kube.CoreV1().Services(pod.Namespace)
	for _, s := range []subject{
		{"pod", pod.Name, kube.CoreV1().Pods(pod.Namespace), func(i int) error { return setReady(ctx, kube, pod, address(0, 20), (i+o.rounds)%2 == 1) }}, // as no storm left it
		{"Service", "s0", services, func(i int) error {
			patch := fmt.Appendf(nil, `{"spec":{"ports":[{"port":80,"targetPort":%d}]}}`, 8081+i)
			_, err := services.Patch(ctx, "s0", types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		}},
	} {
		if err := s.measure(ctx, o.rounds*o.changes, f, least); err != nil {
			return fmt.Errorf("a lone change of a %s: %w", s.kind, err)
		}
	}
	now, most := plane.memory()
	fmt.Printf("memory %.0f MB, at most %.0f\n", now, most)
	return nil
}

// measure makes n changes, far apart.
func (s subject) measure(ctx context.Context, n int, f, least *fleet) error {
	events, err := s.in.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", s.name).String()})
	if err != nil {
		return err
	}
	defer events.Stop()
	came := arrivals(ctx, events)
	var all []alone
	var bare []float64
	for i := range n {
		begin := time.Now()
		since := func(t time.Time) float64 { return milliseconds(t.Sub(begin)) }
		if err := s.change(i); err != nil {
			return err
		}
		written := time.Now()
		seen, err := event(ctx, came)
		if err != nil {
			return err
		}
		first, last, data, err := f.wait(ctx)
		if err != nil {
			return err
		}
		all = append(all, alone{since(written), since(seen), since(first), since(last)})
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
		sent := time.Now()
		if _, err := fmt.Fprintln(least.server.input, hex.EncodeToString(data)); err != nil {
			return err
		}
		if _, last, _, err = least.wait(ctx); err != nil {
			return err
		}
		bare = append(bare, milliseconds(last.Sub(sent)))
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	slices.SortFunc(all, func(a, b alone) int { return cmp.Compare(a.last, b.last) })
	slices.Sort(bare)
	fmt.Printf("a lone change of a %s, in ms from the write to the API server until the last of %d agents has it: median %v; 9 of 10 %v; worst of %d %v; the same bytes by a bare stream: median %.1f, 9 of 10 %.1f, worst %.1f\n",
		s.kind, len(f.clients), all[n/2], all[n*9/10], n, all[n-1], measure.Median(bare), bare[n*9/10], bare[n-1])
	return nil
}

// arrivals are when events of changes came.
func arrivals(ctx context.Context, events watch.Interface) <-chan time.Time {
	came := make(chan time.Time, 1)
	go func() {
		defer close(came)
		for e := range events.ResultChan() {
			if e.Type != watch.Modified {
				continue
			}
			select {
			case came <- time.Now():
			case <-ctx.Done():
				return
			}
		}
	}()
	return came
}

// event waits for one, and tells when it was there.
func event(ctx context.Context, came <-chan time.Time) (time.Time, error) {
	select {
	case at, more := <-came:
		if !more {
			return at, errors.New("the watch has ended")
		}
		return at, nil
	case <-time.After(30 * time.Second):
		return time.Time{}, errors.New("no event came")
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}
