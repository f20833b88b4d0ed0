package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	labs "github.com/fairlead-mesh/fairlead/pkg/lab"
	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
)

// write puts a file into the cluster's directory; a change is live a moment later.
func (l *lab) write(t *testing.T, name, text string) {
	t.Helper()
	next := filepath.Join(l.dir, "."+name+".next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(l.dir, name)); err != nil {
		t.Fatal(err)
	}
}

func (l *lab) remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(l.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// waypointOf is a Gateway of the namespace shop with further metadata.
func waypointOf(name, metadata, spec string) string {
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: %s, namespace: shop%s}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
%s`, name, metadata, spec)
}

// pods are the names of a deployment's pods, of those that are ready alone.
func (l *lab) pods(t *testing.T, namespace, deployment string) (ready, other []string) {
	t.Helper()
	for _, p := range l.view(t).Pods {
		switch {
		case p.Namespace != namespace || p.Deployment != deployment:
		case p.Ready && !p.Terminating:
			ready = append(ready, p.Name)
		default:
			other = append(other, p.Name)
		}
	}
	return ready, other
}

// settled waits until a deployment has n pods, all ready, none of them among old.
func (l *lab) settled(t *testing.T, deployment string, n int, old ...string) (names []string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has %d pods, all new", deployment, n), func() bool {
		ready, other := l.pods(t, "shop", deployment)
		names = ready
		return len(ready) == n && len(other) == 0 && !slices.ContainsFunc(ready, func(p string) bool { return slices.Contains(old, p) })
	})
	return names
}

// marked is what an answer says that a waypoint had a part in.
const marked = "X-Request-Id"

// watched are loads that must not lose a request.
type watched struct {
	lab  *lab
	pods []string
}

// more waits until every load had n more answers than now, and says what came of them.
func (w watched) more(t *testing.T, n int64) map[string]app.LoadResult {
	t.Helper()
	out := map[string]app.LoadResult{}
	for _, p := range w.pods {
		before := w.lab.load(t, p)
		var after app.LoadResult
		eventually(t, fmt.Sprintf("%d more answers for %s", n, p), func() bool {
			after = w.lab.load(t, p)
			return after.OK+after.Failed >= before.OK+before.Failed+n
		})
		after.OK, after.Failed = after.OK-before.OK, after.Failed-before.Failed
		after.Counts = map[string]int64{marked: after.Counts[marked] - before.Counts[marked]}
		out[p] = after
	}
	return out
}

// fine fails the test where a load lost a request.
func (w watched) fine(t *testing.T, when string) {
	t.Helper()
	for p, r := range w.more(t, 100) {
		if r.Failed > 0 {
			t.Fatalf("%s: %s lost %d requests: %v", when, p, r.Failed, r.Errors)
		}
	}
}

// through waits until all that is asked goes through a waypoint, or nothing does.
func (w watched) through(t *testing.T, all bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("all goes through the waypoint: %v", all), func() bool {
		for p, r := range w.more(t, 50) {
			if r.Failed > 0 {
				t.Fatalf("%s lost %d requests: %v", p, r.Failed, r.Errors)
			}
			if n := r.Counts[marked]; (all && n != r.OK) || (!all && n != 0) {
				return false
			}
		}
		return true
	})
}

// marks is what the loads counted until now.
func (w watched) marks(t *testing.T) map[string][2]int64 {
	t.Helper()
	out := map[string][2]int64{}
	for _, p := range w.pods {
		r := w.lab.load(t, p)
		out[p] = [2]int64{r.OK, r.Counts[marked]}
	}
	return out
}

// TestWaypointLosesNoRequest adds, changes, scales, replaces and removes a waypoint
// under 200 requests a second on connections of their own and as many on kept ones. No
// request fails, and while there is a waypoint each goes through it.
func TestWaypointLosesNoRequest(t *testing.T) {
	needRoot(t)
	build(t)
	ask := []string{"--url", "http://server/", "--rate", "200", "--concurrency", "16", "--timeout", "20s", "--count", `"(` + marked + `)"`}
	kept := "" // a load on kept connections that are made after the waypoint came
	bound := func(waypoint string) string {
		return fmt.Sprintf("%s---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: %s}}\n",
			twoNodes, waypoint) + echoPod("shop", "server", "n2") +
			loadPod("shop", "caller", "n1", ask...) + loadPod("shop", "keeper", "n1", append(slices.Clone(ask), "--keep-alive")...) + kept
	}
	l := newLab(t, bound("none"))
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, part := range []string{"agent/n1", "agent/n2"} {
			for line := range strings.Lines(l.run(t, "lab", "logs", "--name", l.name, part)) {
				if strings.Contains(line, `"error":`) {
					t.Log(part, line)
				}
			}
		}
	})
	caller := watched{l, []string{"shop/caller"}}
	both := watched{l, []string{"shop/caller", "shop/keeper"}}
	both.more(t, 1) // what was asked before the server was there is over
	both.fine(t, "without a waypoint")
	step := func(what string, do func()) {
		t.Helper()
		start := time.Now()
		before := both.marks(t)
		do()
		both.fine(t, what)
		after := both.marks(t)
		for p := range after {
			t.Logf("%s: %s had %d answers in %.1f s, %d of them through the waypoint", what, p,
				after[p][0]-before[p][0], time.Since(start).Seconds(), after[p][1]-before[p][1])
		}
	}
	all := func(what string, do func()) {
		t.Helper()
		before := caller.marks(t)
		step(what, do)
		after := caller.marks(t)
		for p, a := range after {
			if b := before[p]; a[0]-b[0] != a[1]-b[1] {
				t.Errorf("%s: %s had %d answers, %d of them through the waypoint", what, p, a[0]-b[0], a[1]-b[1])
			}
		}
	}
	step("adding", func() {
		l.write(t, "gateway.yaml", waypointOf("first", "", ""))
		l.settled(t, "first", 1)
		l.write(t, "cluster.yaml", bound("first"))
		caller.through(t, true)
	})
	kept = loadPod("shop", "kept", "n1", append(slices.Clone(ask), "--keep-alive")...)
	l.write(t, "cluster.yaml", bound("first"))
	caller.pods, both.pods = append(caller.pods, "shop/kept"), append(both.pods, "shop/kept")
	eventually(t, "the load on kept connections runs", func() bool {
		return slices.ContainsFunc(l.view(t).Pods, func(p labs.PodView) bool { return p.Name == "kept" && p.Ready })
	})
	caller.through(t, true)
	var old []string
	all("changing", func() {
		old, _ = l.pods(t, "shop", "first")
		l.write(t, "gateway.yaml", waypointOf("first", "", "  infrastructure: {labels: {changed: \"yes\"}}\n"))
		old = l.settled(t, "first", 1, old...)
	})
	all("scaling to 3", func() {
		l.write(t, "gateway.yaml", waypointOf("first", ", annotations: {fairlead.dev/waypoint-replicas: \"3\"}", "  infrastructure: {labels: {changed: \"yes\"}}\n"))
		l.settled(t, "first", 3)
	})
	all("scaling to 1", func() {
		l.write(t, "gateway.yaml", waypointOf("first", "", "  infrastructure: {labels: {changed: \"yes\"}}\n"))
		old = l.settled(t, "first", 1)
	})
	all("replacing by another", func() {
		l.write(t, "second.yaml", waypointOf("second", "", ""))
		l.settled(t, "second", 1)
		l.write(t, "cluster.yaml", bound("second"))
		l.remove(t, "gateway.yaml")
		l.settled(t, "first", 0)
	})
	step("removing", func() {
		l.remove(t, "second.yaml")
		l.settled(t, "second", 0)
		caller.through(t, false)
	})
}
