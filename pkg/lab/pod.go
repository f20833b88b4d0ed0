package lab

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// The annotation by which the lab says that a pod has joined the mesh.
const (
	redirectionAnnotation = "ambient.istio.io/redirection"
	redirectionEnabled    = "enabled"
)

// pod is one pod. Its fields are owned by the loop unless they say otherwise.
type pod struct {
	// Constant after it was made.
	uid     string
	key     objects.Key
	spec    corev1.PodSpec
	labels  map[string]string // of the object as it was made
	owner   *objects.Key      // the Deployment, or nil
	hash    string            // of the Deployment's template, or of the Pod object
	node    *node
	addrs   []netip.Addr
	created metav1.Time
	cancel  context.CancelFunc
	gone    chan struct{} // closed when nothing of it is left
	capture *mailbox[bool]

	// annotations and labels follow the object where that needs no new pod.
	annotations map[string]string
	nowLabels   map[string]string

	netns         string
	hostInterface string
	phase         corev1.PodPhase
	containers    []containerState
	ready         bool
	deleting      bool
	deletedAt     metav1.Time
	captured      bool // what was last asked of the agent
	enrolled      bool // what the agent last answered
	announced     bool // the annotation stands
	problem       string
	dirty         bool // the control plane should see it anew
}

// containerState is what a container's supervisor last reported.
type containerState struct {
	Name     string
	Image    string
	PID      int
	Running  bool
	Ready    bool
	Restarts int32
	Started  metav1.Time
	// Ended is the exit code of the last run, and Message why it is not running.
	Ended   int
	Message string
}

// done reports whether a pod has ended by itself.
func (p *pod) done() bool { return p.phase == corev1.PodSucceeded || p.phase == corev1.PodFailed }

// reason says in a few words why a pod is not ready.
func (p *pod) reason() string {
	if p.problem != "" {
		return p.problem
	}
	for _, c := range p.containers {
		if !c.Ready && c.Message != "" {
			return c.Name + ": " + c.Message
		}
	}
	if p.phase == corev1.PodPending {
		return "is being set up"
	}
	return "is not ready yet"
}

// makePod makes a pod on a node and starts its worker.
func (l *Lab) makePod(ctx context.Context, key objects.Key, meta metav1.ObjectMeta, spec corev1.PodSpec, n *node) (*pod, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &pod{
		uid: newUID(), key: key, spec: *spec.DeepCopy(), labels: maps.Clone(meta.Labels), node: n, created: metav1.NewTime(time.Now().Truncate(time.Second)),
		cancel: cancel, gone: make(chan struct{}), capture: newMailbox[bool](), phase: corev1.PodPending,
		annotations: maps.Clone(meta.Annotations), nowLabels: maps.Clone(meta.Labels),
	}
	if p.spec.ServiceAccountName == "" {
		p.spec.ServiceAccountName = "default"
	}
	p.spec.NodeName = n.name
	for _, c := range p.spec.Containers {
		p.containers = append(p.containers, containerState{Name: c.Name, Image: imageOf(&c), Ended: -1})
	}
	if p.spec.HostNetwork {
		for _, a := range n.addrs {
			p.addrs = append(p.addrs, a.Addr())
		}
	} else {
		for _, pool := range n.pools {
			a, err := pool.Take()
			if err != nil {
				cancel()
				p.release()
				return nil, err
			}
			p.addrs = append(p.addrs, a)
		}
	}
	p.captured = l.wantsCapture(p)
	l.pods[p.uid] = p
	w := l.newWorker(p)
	l.workers.Go(func() { w.run(ctx) })
	return p, nil
}

// release gives the pod's addresses back.
func (p *pod) release() {
	if p.spec.HostNetwork {
		return
	}
	for i, a := range p.addrs {
		p.node.pools[i].Give(a)
	}
}

// deletePod ends a pod, in the background.
func (l *Lab) deletePod(p *pod) {
	if p.deleting {
		return
	}
	p.deleting, p.ready, p.dirty = true, false, true
	p.deletedAt = metav1.NewTime(time.Now().Truncate(time.Second))
	p.cancel()
}

// wantsCapture reads the labels.
func (l *Lab) wantsCapture(p *pod) bool {
	if p.node.agent == nil {
		return false
	}
	var labels map[string]string
	if ns := l.set.Namespaces[objects.Key{Name: p.key.Namespace}]; ns != nil {
		labels = ns.Labels
	}
	captured, _ := podwatch.Rule{}.Captures(podwatch.Facts{
		Namespace: p.key.Namespace, Labels: p.nowLabels, Annotations: p.annotations, HostNetwork: p.spec.HostNetwork,
	}, labels)
	return captured
}

func (l *Lab) sortedPods() []*pod {
	out := make([]*pod, 0, len(l.pods))
	for _, p := range l.pods {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *pod) int {
		return cmp.Or(cmp.Compare(a.key.Namespace, b.key.Namespace), cmp.Compare(a.key.Name, b.key.Name), cmp.Compare(a.uid, b.uid))
	})
	return out
}

func newUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// device is the name of the pod's veth on the node.
func (p *pod) device() string { return "veth" + p.uid[:8] }

// space is the name of the pod's network namespace. A long one ends in the uid.
func (l *Lab) space(p *pod) string {
	name := l.place.netnsPrefix() + "pod." + p.key.Namespace + "." + p.key.Name
	if len(name) > 200 {
		name = name[:200]
	}
	return name + "." + p.uid[:8]
}

// imageOf names what a container runs.
func imageOf(c *corev1.Container) string {
	if c.Image == "" && len(c.Command) > 0 {
		return c.Command[0]
	}
	return c.Image
}
