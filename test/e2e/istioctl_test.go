package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// part is one of Istio's or Kubernetes' (test/kube/build.sh). Without it the test is skipped, and fails where parts are asked for.
func part(t *testing.T, name string) string {
	t.Helper()
	path, err := cluster.Part(name)
	if err != nil {
		if os.Getenv(cluster.Required) != "" || underIstiod() {
			t.Fatal(err)
		}
		t.Skipf("`make test-interop` builds what this needs: %v", err)
	}
	return path
}

// table is what istioctl prints, row by row, with single spaces.
func table(t *testing.T, istioctl string, args ...string) string {
	t.Helper()
	cmd := exec.Command(istioctl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG=/nonexistent", "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("istioctl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	var rows []string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(rows, "\n")
}

// TestIstioctlReadsWhatTheyShow gives istioctl what our agents and waypoints show of
// themselves, and finds in its tables what is so.
func TestIstioctlReadsWhatTheyShow(t *testing.T) {
	needRoot(t)
	istioctl := part(t, "istioctl")
	build(t)
	const objects = `---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec: {selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {app: client}}, rules: [{from: [{source: {namespaces: [nowhere]}}]}]}
`
	const route = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: shop}
spec:
  hosts: [server]
  http:
  - name: canary
    match: [{uri: {prefix: /canary}}]
    route: [{destination: {host: server}}]
  - route: [{destination: {host: server}}]
`
	l := newLab(t, twoNodes+objects+waypointOf("waypoint", "", "")+echoPod("shop", "client", "n1")+echoPod("shop", "server", "n2"))
	l.write(t, "route.yaml", route)
	dir := t.TempDir()
	page := func(pod, path, name string) string {
		file := filepath.Join(dir, name)
		text := l.run(t, "lab", "exec", "--name", l.name, pod, "--", "curl", "-sS", "-m", "10", "http://localhost:15000/"+path)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	eventually(t, "requests go through the waypoint", func() bool {
		out, err := exec.Command(filepath.Join(binaries, "fairlead"), "lab", "exec", "--name", l.name, "shop/client", "--", "curl", "-sS", "-m", "5", "http://server/canary/x").Output()
		return err == nil && strings.Contains(string(out), "X-Request-Id")
	})
	waypoint := "shop/" + l.settled(t, "waypoint", 1)[0]
	server := l.podIP(t, "shop/server", 0)
	for _, c := range []struct {
		pod, path string
		args      []string
		want      []string
	}{
		{"node/n1", "config_dump", []string{"ztunnel-config", "all"}, []string{
			"NAMESPACE POD NAME ADDRESS NODE WAYPOINT PROTOCOL", "shop server " + server, " n2 None HBONE", "NAMESPACE SERVICE NAME SERVICE VIP WAYPOINT ENDPOINTS",
			"shop server " + l.clusterIP(t, "shop", "server") + " waypoint 1/1", "shop nobody Deny WorkloadSelector",
		}},
		{"node/n1", "config_dump", []string{"ztunnel-config", "workload"}, []string{"shop client " + l.podIP(t, "shop/client", 0)}},
		{"node/n1", "config_dump", []string{"ztunnel-config", "service"}, []string{"shop waypoint "}},
		{"node/n1", "config_dump", []string{"ztunnel-config", "policy"}, []string{"shop nobody Deny WorkloadSelector"}},
		{"node/n1", "config_dump", []string{"ztunnel-config", "certificate"}, []string{"spiffe://cluster.local/ns/shop/sa/default Leaf Available true", "Root Available true"}},
		{"node/n1", "config_dump", []string{"ztunnel-config", "connections"}, []string{"WORKLOAD DIRECTION LOCAL REMOTE REMOTE TARGET PROTOCOL"}},
		{waypoint, "config_dump", []string{"proxy-config", "listener"}, []string{"Route: inbound-vip|80|http|server.shop.svc.cluster.local", "Cluster: inbound-vip|9000|tcp|server.shop.svc.cluster.local", "0.0.0.0 15008 ALL Inline Route:"}},
		{waypoint, "config_dump", []string{"proxy-config", "cluster"}, []string{"server.shop.svc.cluster.local 80 http inbound-vip EDS"}},
		{waypoint, "config_dump", []string{"proxy-config", "route"}, []string{"inbound-vip|80|http|server.shop.svc.cluster.local", "/canary*"}},
		{waypoint, "config_dump?include_eds", []string{"proxy-config", "eds"}, []string{server + ":8080", "inbound-vip|80|http|server.shop.svc.cluster.local"}},
		{waypoint, "clusters?format=json", []string{"proxy-config", "endpoint"}, []string{"HEALTHY OK"}},
		{waypoint, "config_dump", []string{"proxy-config", "secret"}, []string{"default Cert Chain ACTIVE true", "ROOTCA CA ACTIVE true"}},
		{waypoint, "config_dump", []string{"proxy-config", "bootstrap"}, []string{`"id": "waypoint~`}},
	} {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			got := ""
			missing := func() (out []string) {
				got = table(t, istioctl, append(c.args, "--file", page(c.pod, c.path, "page.json"))...)
				for _, want := range c.want {
					if !strings.Contains(got, want) {
						out = append(out, want)
					}
				}
				return out
			}
			for start := time.Now(); len(missing()) > 0; {
				if time.Since(start) > retryFor/2 {
					t.Fatalf("no %q in:\n%s", missing(), got)
				}
			}
		})
	}
}
