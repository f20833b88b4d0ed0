package plane

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

const addressType = "type.googleapis.com/istio.workload.Address"

// counter is an agent's stream that counts what comes, and acknowledges it.
type counter struct {
	mu    sync.Mutex
	came  int               // responses
	named map[string]int    // how often each resource came
	have  map[string]string // versions
}

// count opens a stream for an agent's pod, which says what it has already.
func (p *Plane) count(pod *corev1.Pod, have map[string]string) (c *counter, stop func()) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(p.Dial(p.Token(pod))).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	metadata, err := structpb.NewStruct(map[string]any{"NODE_NAME": pod.Spec.NodeName})
	if err != nil {
		p.t.Fatal(err)
	}
	id := "ztunnel~" + pod.Status.PodIP + "~" + pod.Name + "." + pod.Namespace + "~" + pod.Namespace + ".svc.cluster.local"
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: id, Metadata: metadata}, TypeUrl: addressType, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: have,
	}); err != nil {
		p.t.Fatal(err)
	}
	c = &counter{named: map[string]int{}, have: map[string]string{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.came++
			for _, r := range m.Resources {
				c.named[r.Name]++
				c.have[r.Name] = r.Version
			}
			c.mu.Unlock()
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: addressType, ResponseNonce: m.Nonce}) // Recv tells of its end
		}
	}()
	return c, func() { cancel(); <-done }
}

func (c *counter) responses() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.came
}

// distinct is how many resources came whose name has a part.
func (c *counter) distinct(part string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name := range c.named {
		if strings.Contains(name, part) {
			n++
		}
	}
	return n
}

// Five hundred changes in a second are few responses, and who comes back is sent what
// changed while it was away, and nothing else.
func TestManyChangesAreFewResponses(t *testing.T) {
	const pods, perSecond = 500, 20
	p := Start(t, cluster.ForTest(t, cluster.Options{Name: "storm"}))
	p.Apply(shop)
	p.Node("n1", nil)
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	each := func(do func(i int) error) time.Duration {
		t.Helper()
		begin := time.Now()
		var group errgroup.Group
		group.SetLimit(64)
		for i := range pods {
			group.Go(func() error { return do(i) })
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		return time.Since(begin)
	}
	made := make([]*corev1.Pod, pods)
	p.Until("a service account", func() bool {
		_, err := p.Kube.CoreV1().ServiceAccounts("shop").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	status := func(i int, ready corev1.ConditionStatus) error {
		ip := fmt.Sprintf("10.2.%d.%d", i>>8, i&255)
		made[i].Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}}
		var err error
		made[i], err = p.Kube.CoreV1().Pods("shop").UpdateStatus(t.Context(), made[i], metav1.UpdateOptions{})
		return err
	}
	each(func(i int) (err error) {
		if made[i], err = p.Kube.CoreV1().Pods("shop").Create(t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("storm-%03d", i), Labels: map[string]string{"app": "web"}, Annotations: map[string]string{enrolled: "enabled"}},
			Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "app", Image: "echo"}}},
		}, metav1.CreateOptions{}); err != nil {
			return err
		}
		return status(i, corev1.ConditionTrue)
	})
	p.Until("ready", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	c, stop := p.count(agent, nil)
	p.Until("all pods", func() bool { return c.distinct("/storm-") == pods })

	c.mu.Lock()
	before := c.came
	clear(c.named)
	c.mu.Unlock()
	took := each(func(i int) error { return status(i, corev1.ConditionFalse) })
	p.Until("all changes", func() bool { return c.distinct("/storm-") == pods })
	bound := perSecond * int(math.Ceil(took.Seconds()))
	if n := c.responses() - before; n > bound {
		t.Errorf("%d changes in %v were %d responses, want at most %d", pods, took, n, bound)
	} else {
		t.Logf("%d changes in %v: %d responses", pods, took, n)
	}
	stop()

	if err := status(7, corev1.ConditionTrue); err != nil {
		t.Fatal(err)
	}
	again, stop := p.count(agent, c.have)
	defer stop()
	p.Until("an answer", func() bool { return again.responses() > 0 })
	p.Until("what changed", func() bool { return again.distinct("/storm-007") == 1 })
	again.mu.Lock()
	defer again.mu.Unlock()
	if names := slices.Collect(maps.Keys(again.named)); len(names) != 1 {
		t.Errorf("sent again: %q, want one", names)
	}
}
