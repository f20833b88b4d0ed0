package informer

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// maxShared bounds a pool; it begins anew then.
const maxShared = 1 << 13

// pool has values that many objects have in common, as the pods of one Deployment do,
// each once: thousands of pods take a third less memory so. Not safe for concurrent use.
type pool[T any] map[string]T

// share is a value, or the one that was there before under its text.
func (p pool[T]) share(text string, v T) T {
	if one, ok := p[text]; ok {
		return one
	}
	if len(p) >= maxShared {
		clear(p)
	}
	p[text] = v
	return v
}

// pools are those of one kind, whose objects come one after another.
type pools struct {
	texts      pool[string]
	labels     pool[map[string]string]
	owners     pool[[]metav1.OwnerReference]
	containers pool[[]corev1.Container]
	ports      pool[[]discoveryv1.EndpointPort]
}

func newPools() *pools {
	return &pools{texts: pool[string]{}, labels: pool[map[string]string]{}, owners: pool[[]metav1.OwnerReference]{}, containers: pool[[]corev1.Container]{}, ports: pool[[]discoveryv1.EndpointPort]{}}
}

func (p *pools) text(s string) string { return p.texts.share(s, s) }

// set shares labels, or annotations.
func (p *pools) set(of map[string]string) map[string]string {
	if len(of) == 0 {
		return nil
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(of)) {
		text.WriteString(name)
		text.WriteByte(0)
		text.WriteString(of[name])
		text.WriteByte(0)
	}
	return p.labels.share(text.String(), of)
}
