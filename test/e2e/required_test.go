package e2e

import (
	"slices"
	"testing"
)

// TestRequiredWaypointLosesNoRequest requires a waypoint, changes and scales it while it
// is required, and gives the way around it free again, under 200 requests a second on
// connections of their own and as many on kept ones. None of them fails or goes around
// it, and a call to the pod's own address is refused while it is required.
func TestRequiredWaypointLosesNoRequest(t *testing.T) {
	needRoot(t)
	build(t)
	const required = ", annotations: {fairlead.dev/waypoint: required}"
	ask := []string{"--url", "http://server/", "--rate", "200", "--concurrency", "16", "--timeout", "20s", "--count", `"(` + marked + `)"`}
	cluster := func(loads string) string {
		return twoNodes + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}\n" +
			echoPod("shop", "server", "n2") + echoPod("shop", "direct", "n1") + loads
	}
	l := newLab(t, cluster(""))
	l.write(t, "gateway.yaml", waypointOf("waypoint", "", ""))
	pods := l.settled(t, "waypoint", 1)
	l.write(t, "cluster.yaml", cluster(loadPod("shop", "caller", "n1", ask...)+loadPod("shop", "kept", "n1", append(slices.Clone(ask), "--keep-alive")...)))
	loads := watched{l, []string{"shop/caller", "shop/kept"}}
	eventually(t, "the loads run", func() bool {
		ready, _ := l.pods(t, "shop", "")
		return slices.Contains(ready, "caller") && slices.Contains(ready, "kept")
	})
	loads.more(t, 50)
	loads.through(t, true)

	server := ""
	for _, p := range l.view(t).Pods {
		if p.Name == "server" {
			server = p.IPs[0]
		}
	}
	around := func() bool {
		out := l.run(t, "lab", "exec", "--name", l.name, "shop/direct", "--", "sh", "-c", "curl -s -m 5 -o /dev/null -w '%{http_code}' http://"+server+":8080/ || true")
		return out == "200"
	}
	all := func(what string, refused bool, do func()) {
		t.Helper()
		before := loads.marks(t)
		do()
		loads.fine(t, what)
		eventually(t, what+": a call to the pod", func() bool { return around() != refused })
		for p, a := range loads.marks(t) {
			if b := before[p]; a[0]-b[0] != a[1]-b[1] {
				t.Errorf("%s: %s had %d answers, %d of them through the waypoint", what, p, a[0]-b[0], a[1]-b[1])
			}
		}
	}
	const changed = "  infrastructure: {labels: {changed: \"yes\"}}\n"
	all("requiring", true, func() { l.write(t, "gateway.yaml", waypointOf("waypoint", required, "")) })
	all("changing", true, func() {
		l.write(t, "gateway.yaml", waypointOf("waypoint", required, changed))
		pods = l.settled(t, "waypoint", 1, pods...)
	})
	all("scaling to 2", true, func() {
		l.write(t, "gateway.yaml", waypointOf("waypoint", ", annotations: {fairlead.dev/waypoint: required, fairlead.dev/waypoint-replicas: \"2\"}", changed))
		l.settled(t, "waypoint", 2)
	})
	all("scaling to 1", true, func() {
		l.write(t, "gateway.yaml", waypointOf("waypoint", required, changed))
		l.settled(t, "waypoint", 1)
	})
	all("giving free", false, func() { l.write(t, "gateway.yaml", waypointOf("waypoint", "", changed)) })
}
