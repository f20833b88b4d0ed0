package lab

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
)

const templateHashLabel = "pod-template-hash"

// retryPlacing is how soon a pod that found no node is tried again.
const retryPlacing = time.Second

// reconcilePods makes the pods that are wanted and missing, ends those that are
// not wanted, and tells agents what labels now say.
func (l *Lab) reconcilePods(ctx context.Context) {
	byKey := map[objects.Key]*pod{}
	byOwner := map[objects.Key][]*pod{}
	for _, p := range l.sortedPods() {
		if p.owner != nil {
			byOwner[*p.owner] = append(byOwner[*p.owner], p)
		} else {
			byKey[p.key] = p
		}
	}
	for _, key := range sortedKeys(l.set.Pods) {
		l.reconcileBare(ctx, l.set.Pods[key], byKey[key])
	}
	for key, p := range byKey {
		if l.set.Pods[key] == nil {
			l.deletePod(p)
		}
	}
	for _, key := range sortedKeys(l.set.Deployments) {
		l.reconcileDeployment(ctx, l.set.Deployments[key], byOwner[key])
	}
	for key, pods := range byOwner {
		if l.set.Deployments[key] == nil {
			for _, p := range pods {
				l.deletePod(p)
			}
		}
	}
	for _, p := range l.pods {
		if want := l.wantsCapture(p); want != p.captured && !p.deleting {
			p.captured = want
			p.capture.put(want)
		}
	}
}

// reconcileBare keeps a Pod object's pod. What can change in a living pod changes
// (labels, annotations); anything else makes a new one.
func (l *Lab) reconcileBare(ctx context.Context, o *corev1.Pod, p *pod) {
	hash := hashOf(o.Spec)
	if p != nil {
		if p.hash != hash {
			l.deletePod(p)
		}
		if !maps.Equal(p.nowLabels, o.Labels) || !maps.Equal(p.annotations, o.Annotations) {
			p.nowLabels, p.annotations, p.dirty = maps.Clone(o.Labels), maps.Clone(o.Annotations), true
		}
		return
	}
	n := l.choose(&o.Spec, nil)
	if n == nil {
		l.later(retryPlacing)
		return
	}
	p, err := l.makePod(ctx, objects.KeyOf(o), o.ObjectMeta, o.Spec, n)
	if err != nil {
		l.log.Error("a pod was not made", "pod", objects.KeyOf(o), "err", err)
		l.later(retryPlacing)
		return
	}
	p.hash = hash
}

// reconcileDeployment takes one step from the pods there are to those wanted;
// their reports lead to the next.
func (l *Lab) reconcileDeployment(ctx context.Context, d *appsv1.Deployment, pods []*pod) {
	key := objects.KeyOf(d)
	hash := hashOf(d.Spec.Template)
	create, remove := rollout(d, hash, pods)
	for _, p := range remove {
		l.deletePod(p)
	}
	for range create {
		n := l.choose(&d.Spec.Template.Spec, pods)
		if n == nil {
			l.later(retryPlacing)
			return
		}
		meta := metav1.ObjectMeta{Labels: maps.Clone(d.Spec.Template.Labels), Annotations: maps.Clone(d.Spec.Template.Annotations)}
		meta.Labels[templateHashLabel] = hash
		name := objects.Key{Namespace: key.Namespace, Name: fmt.Sprintf("%s-%s-%s", key.Name, hash, suffix())}
		p, err := l.makePod(ctx, name, meta, d.Spec.Template.Spec, n)
		if err != nil {
			l.log.Error("a pod was not made", "deployment", key, "err", err)
			l.later(retryPlacing)
			return
		}
		p.owner, p.hash = &key, hash
		pods = append(pods, p)
	}
}

// rollout says how many pods to make and which to end now. Pods of an older
// template go as those of the new one become ready.
func rollout(d *appsv1.Deployment, hash string, pods []*pod) (create int, remove []*pod) {
	want := 1
	if d.Spec.Replicas != nil {
		want = int(*d.Spec.Replicas)
	}
	var current, old []*pod
	ready := 0
	for _, p := range pods {
		switch {
		case p.deleting:
			continue
		case p.done():
			remove = append(remove, p)
			continue
		case p.hash == hash:
			current = append(current, p)
		default:
			old = append(old, p)
		}
		if p.ready {
			ready++
		}
	}
	// Those that serve are worth most, then those that exist longest.
	worth := func(a, b *pod) int {
		return cmp.Or(cmp.Compare(value(b), value(a)), a.created.Compare(b.created.Time), cmp.Compare(a.uid, b.uid))
	}
	slices.SortFunc(current, worth)
	slices.SortFunc(old, worth)
	if len(current) > want {
		remove = append(remove, current[want:]...)
		current = current[:want]
	}
	surge, unavailable := limits(d, want)
	if d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		if len(old) > 0 {
			return 0, append(remove, old...)
		}
		return want - len(current), remove
	}
	create = max(0, min(want-len(current), want+surge-len(current)-len(old)))
	for i := len(old) - 1; i >= 0; i-- {
		if old[i].ready {
			if ready <= want-unavailable {
				continue
			}
			ready--
		}
		remove = append(remove, old[i])
	}
	return create, remove
}

func value(p *pod) int {
	if p.ready {
		return 1
	}
	return 0
}

// limits are maxSurge and maxUnavailable, as Kubernetes rounds them.
func limits(d *appsv1.Deployment, want int) (surge, unavailable int) {
	quarter := intstr.FromString("25%")
	s, u := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		s, u = cmp.Or(r.MaxSurge, s), cmp.Or(r.MaxUnavailable, u)
	}
	surge, errS := intstr.GetScaledValueFromIntOrPercent(s, want, true)
	unavailable, errU := intstr.GetScaledValueFromIntOrPercent(u, want, false)
	if errS != nil || errU != nil || surge+unavailable == 0 {
		return 1, 0
	}
	return surge, unavailable
}

// choose picks a node for a pod: the one with the fewest of its siblings, then
// with the fewest pods. nil means that none fits now.
func (l *Lab) choose(spec *corev1.PodSpec, siblings []*pod) *node {
	if spec.NodeName != "" {
		return l.nodes[spec.NodeName]
	}
	selector := labels.SelectorFromSet(spec.NodeSelector)
	near, all := map[*node]int{}, map[*node]int{}
	for _, p := range siblings {
		if !p.deleting {
			near[p.node]++
		}
	}
	for _, p := range l.pods {
		if !p.deleting {
			all[p.node]++
		}
	}
	var fit []*node
	for _, n := range l.sortedNodes() {
		if !n.object.Spec.Unschedulable && selector.Matches(labels.Set(n.labels())) {
			fit = append(fit, n)
		}
	}
	if len(fit) == 0 {
		return nil
	}
	return slices.MinFunc(fit, func(a, b *node) int {
		return cmp.Or(cmp.Compare(near[a], near[b]), cmp.Compare(all[a], all[b]))
	})
}

// missingPods says which wanted pods do not even exist.
func (l *Lab) missingPods() []string {
	have := map[objects.Key]int{}
	for _, p := range l.pods {
		if p.owner != nil && !p.deleting {
			have[*p.owner]++
		} else if !p.deleting {
			have[p.key]++
		}
	}
	var out []string
	for _, key := range sortedKeys(l.set.Pods) {
		if have[key] == 0 {
			out = append(out, "pod "+key.String()+": no node for it")
		}
	}
	for _, key := range sortedKeys(l.set.Deployments) {
		if r := l.set.Deployments[key].Spec.Replicas; have[key] == 0 && (r == nil || *r > 0) {
			out = append(out, "deployment "+key.String()+": no node for its pods")
		}
	}
	return out
}

// later has reconcile look again.
func (l *Lab) later(d time.Duration) { l.next.Reset(d) }

func hashOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "0" // cannot happen: it was decoded from JSON
	}
	h := fnv.New32a()
	_, _ = h.Write(text)
	return fmt.Sprintf("%08x", h.Sum32())
}

// suffix is what Kubernetes appends to generated names: letters and digits that
// make no words.
func suffix() string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	b := make([]byte, 5)
	for i := range b {
		b[i] = alphabet[rand.IntN(len(alphabet))] //nolint:gosec // G404: a name, not a secret
	}
	return string(b)
}
