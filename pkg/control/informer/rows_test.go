package informer

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// Whatever changes, in whatever portions, what is shown is what a map would hold.
func TestRowsAreAMap(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	odd := true
	rows := rows[*corev1.Pod]{show: func(p *corev1.Pod) bool { return !odd || p.Generation%2 == 1 }}
	model := map[key]*corev1.Pod{}
	for round := range 400 {
		again := r.Intn(20) == 0
		if again {
			odd = !odd
		}
		before := rows.shown
		touched := false
		for range r.Intn(1 << r.Intn(9)) {
			k := key{fmt.Sprint(r.Intn(5)), fmt.Sprint(r.Intn(60))}
			if r.Intn(3) == 0 {
				delete(model, k)
				rows.put(k, nil)
			} else {
				model[k] = &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: k.namespace, Name: k.name, Generation: r.Int63n(100)}}
				rows.put(k, model[k])
			}
			touched = true
			if rows.get(k) != model[k] {
				t.Fatalf("round %d: %v is not what was put", round, k)
			}
		}
		rows.settle(again)
		var want []*corev1.Pod
		for _, p := range model {
			if rows.show(p) {
				want = append(want, p)
			}
		}
		slices.SortFunc(want, func(a, b *corev1.Pod) int { return keyOf(a).compare(keyOf(b)) })
		if !slices.Equal(rows.shown, want) || len(rows.all) != len(model) {
			t.Fatalf("round %d: %d of %d shown, want %d of %d", round, len(rows.shown), len(rows.all), len(want), len(model))
		}
		if !touched && !again && !source.Same(before, rows.shown) {
			t.Fatalf("round %d: nothing changed, and the slice is another", round)
		}
	}
	if len(slices.Collect(maps.Keys(model))) == 0 {
		t.Fatal("nothing was tried")
	}
}
