package resident

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// longestQuestion bounds one question to the API server.
	longestQuestion = 5 * time.Second
	// keptFor is how long its answer is kept.
	keptFor = 5 * time.Second
	// maxKept bounds the memory of answers.
	maxKept = 10_000
)

// ErrTooMany: the API server has been asked so often that this must wait.
var ErrTooMany = errors.New("too many questions about pods that are not known; try again in a while")

// Options of [Pods]. All must be set.
type Options struct {
	// Followed are the pods of the latest state; the same slice while they are the same.
	Followed func() []*corev1.Pod
	// Client asks the API server.
	Client   typedcorev1.PodsGetter
	Registry prometheus.Registerer
}

// Pods implements the CA's view of the cluster.
type Pods struct {
	o       Options
	index   index
	answers *answers
	limits  *limits
	asking  singleflight.Group
	lookups *prometheus.CounterVec
}

// New registers its metric.
func New(o Options) (*Pods, error) {
	if o.Followed == nil || o.Client == nil || o.Registry == nil {
		return nil, errors.New("resident: Followed, Client and Registry must be set")
	}
	p := &Pods{
		o: o, answers: &answers{kept: map[string]answer{}}, limits: newLimits(),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairlead_ca_pod_lookups_total", Help: "Pods that the CA had to ask the API server about, by what came of it.",
		}, []string{"result"}),
	}
	return p, o.Registry.Register(p.lookups)
}

// Exists reports whether the caller's very pod is there: its uid, account and node, and it
// has not ended.
func (p *Pods) Exists(ctx context.Context, caller token.Caller) (bool, error) {
	is := func(pod *corev1.Pod) bool {
		return pod != nil && string(pod.UID) == caller.PodUID && pod.Spec.NodeName == caller.Node && account(pod) == caller.ServiceAccount && !ended(pod)
	}
	for _, latest := range []bool{false, true} {
		if is(p.index.of(p.o.Followed(), latest).byName[podName{caller.Namespace, caller.Pod}]) {
			return true, nil
		}
	}
	return p.lookUp(ctx, caller.Node, "pod/"+caller.Namespace+"/"+caller.Pod+"/"+caller.PodUID, func(ctx context.Context) (bool, error) {
		pod, err := p.o.Client.Pods(caller.Namespace).Get(ctx, caller.Pod, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil && is(pod), err
	})
}

// OnNode reports whether a pod of the account, which has not ended, is on the node.
func (p *Pods) OnNode(ctx context.Context, node, namespace, serviceAccount string) (bool, error) {
	for _, latest := range []bool{false, true} {
		if p.index.of(p.o.Followed(), latest).residents[resident{node, namespace, serviceAccount}] {
			return true, nil
		}
	}
	return p.lookUp(ctx, node, "node/"+node+"/"+namespace+"/"+serviceAccount, func(ctx context.Context) (bool, error) {
		// A node has few pods: this is no long list.
		list, err := p.o.Client.Pods(namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
		if err != nil {
			return false, err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; pod.Spec.NodeName == node && account(pod) == serviceAccount && !ended(pod) {
				return true, nil
			}
		}
		return false, nil
	})
}

// lookUp asks the API server, unless its answer is known or it has been asked too often.
func (p *Pods) lookUp(ctx context.Context, node, question string, ask func(context.Context) (bool, error)) (bool, error) {
	if yes, known := p.answers.get(question, time.Now()); known {
		return yes, nil
	}
	result := p.asking.DoChan(question, func() (any, error) {
		if !p.limits.allow(node) {
			p.lookups.WithLabelValues("limited").Inc()
			return false, ErrTooMany
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), longestQuestion)
		defer cancel()
		yes, err := ask(ctx)
		if err != nil {
			p.lookups.WithLabelValues("failed").Inc()
			return false, fmt.Errorf("ask the API server: %w", err)
		}
		if yes {
			p.lookups.WithLabelValues("found").Inc()
		} else {
			p.lookups.WithLabelValues("absent").Inc()
		}
		p.answers.put(question, yes, time.Now())
		return yes, nil
	})
	select {
	case <-ctx.Done():
		return false, ctx.Err()
	case got := <-result:
		yes, _ := got.Val.(bool)
		return yes, got.Err
	}
}

// ended: none of its containers will run again.
func ended(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
}

func account(pod *corev1.Pod) string {
	if pod.Spec.ServiceAccountName == "" {
		return "default"
	}
	return pod.Spec.ServiceAccountName
}
