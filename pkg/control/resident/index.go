package resident

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// lag is how old an index may be that says yes: pods change often, and thousands of
// them are looked at for a new one.
const lag = time.Second

type podName struct{ namespace, name string }

type resident struct{ node, namespace, account string }

// table is made of one state's pods, and never changed.
type table struct {
	byName    map[podName]*corev1.Pod
	residents map[resident]bool // of pods that have not ended
}

// index makes tables when they are asked for.
type index struct {
	// mu guards below.
	mu    sync.Mutex
	pods  []*corev1.Pod // what table is of
	made  time.Time
	table *table // or nil
}

// of returns the table of pods: the latest, or one that is a little older.
func (i *index) of(pods []*corev1.Pod, latest bool) *table {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := time.Now()
	if i.table != nil && (same(i.pods, pods) || !latest && now.Sub(i.made) < lag) {
		return i.table
	}
	t := &table{byName: make(map[podName]*corev1.Pod, len(pods)), residents: make(map[resident]bool, len(pods))}
	for _, pod := range pods {
		t.byName[podName{pod.Namespace, pod.Name}] = pod
		if pod.Spec.NodeName != "" && !ended(pod) {
			t.residents[resident{pod.Spec.NodeName, pod.Namespace, account(pod)}] = true
		}
	}
	i.pods, i.made, i.table = pods, now, t
	return t
}

// same: the very slice.
func same(a, b []*corev1.Pod) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
