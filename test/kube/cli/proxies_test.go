package cli

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

const productpage = `
apiVersion: v1
kind: Service
metadata: {name: productpage, namespace: shop}
spec: {selector: {app: productpage}, ports: [{name: http, port: 9080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: productpage, namespace: shop}
spec:
  selector: {matchLabels: {app: productpage}}
  template:
    metadata: {labels: {app: productpage, version: v1}}
    spec: {containers: [{name: app, image: "localhost/pause:1", imagePullPolicy: IfNotPresent}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: productpage, namespace: shop}
spec: {host: productpage, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: productpage, namespace: shop}
spec: {hosts: [productpage], http: [{match: [{uri: {prefix: /login}}], route: [{destination: {host: productpage, subset: v1}}]}, {route: [{destination: {host: productpage}}]}]}
`

// TestProxies installs the mesh on a node and looks into its agent and a waypoint, as a
// person would who looks for why something does not work.
func TestProxies(t *testing.T) {
	o := cluster.Options{Name: "clip", Nodes: 1}
	o.Images = build(t, o).Images
	m := start(t, o)
	m.says([]string{"Installation complete"}, "install", "-y", "--set", "hub=localhost/fairlead", "--set", "tag=test")
	m.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}")
	m.says([]string{"waypoint shop/waypoint is ready!"}, "waypoint", "apply", "-n", "shop", "--enroll-namespace", "--wait")
	m.apply(productpage)
	for _, name := range []string{"waypoint", "productpage"} {
		if out, err := m.Kubectl(t.Context(), "-n", "shop", "rollout", "status", "deploy/"+name, "--timeout=90s"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	const web = "productpage.shop.svc.cluster.local"
	m.eventually("the subset at the waypoint", func() bool {
		out, _ := m.run(0, "proxy-config", "clusters", "deploy/waypoint.shop", "--subset", "v1")
		return strings.Contains(plain(out), web+" 9080 http/v1 inbound-vip EDS")
	})

	m.says([]string{"client version: test", "control plane version: test", "data plane version: test (2 proxies)"}, "version")
	m.says([]string{"NAME CLUSTER CDS LDS EDS RDS WADS WDS ISTIOD VERSION NODE", "waypoint-", "SYNCED", " test n1"}, "proxy-status")
	if out, _ := m.run(0, "ps", "deploy/productpage", "-n", "shop"); strings.Count(plain(out), "\n") != 3 {
		t.Errorf("of a workload, its agent and its waypoint are shown:\n%s", out)
	}

	m.says([]string{"has no proxy of its own", web + " 9080 http/v1 inbound-vip EDS"}, "pc", "clusters", "deploy/productpage", "-n", "shop")
	m.says([]string{"inbound-vip|9080|http|" + web + " inbound|http|9080 * /login* productpage.shop"}, "pc", "routes", "deploy/productpage", "-n", "shop")
	m.says([]string{"0.0.0.0 15008 ALL", "Route: inbound-vip|9080|http|" + web}, "pc", "listeners", "deploy/productpage", "-n", "shop")
	m.says([]string{":9080 HEALTHY OK inbound-vip|9080|http/v1|" + web}, "pc", "endpoints", "deploy/productpage.shop")
	m.says([]string{"default Cert Chain ACTIVE true", "ROOTCA CA ACTIVE true"}, "pc", "secrets", "deploy/waypoint", "-n", "shop")
	m.says([]string{"spiffe://cluster.local/ns/shop/sa/default Leaf Available true", "spiffe://cluster.local/ns/shop/sa/default is renewed at 2"}, "pc", "secrets", "deploy/productpage", "-n", "shop")
	m.says([]string{"waypoint-", web + ": debug until 2", "ztunnel-", "shop/productpage-"}, "pc", "logging", "deploy/productpage", "-n", "shop", "--level", "debug")
	m.says([]string{"waypoint: info"}, "pc", "log", "deploy/waypoint", "-n", "shop") // all else that it writes
	m.says([]string{web + ": info, as all of the process"}, "pc", "log", "deploy/productpage", "-n", "shop", "--reset")
	m.says([]string{"waypoint: debug"}, "pc", "log", "deploy/waypoint", "-n", "shop", "--level", "debug")
	m.says([]string{"waypoint: info"}, "pc", "log", "deploy/waypoint", "-n", "shop", "--reset")
	var routes []struct {
		Name         string
		VirtualHosts []struct{ Routes []any }
	}
	if err := json.Unmarshal([]byte(m.says(nil, "pc", "route", "deploy/productpage", "-n", "shop", "-o", "json")), &routes); err != nil || len(routes) == 0 || len(routes[0].VirtualHosts[0].Routes) != 2 {
		t.Errorf("routes as JSON: %v %+v", err, routes)
	}

	m.says([]string{"shop productpage-", "n1 None HBONE"}, "zc", "workload", "deploy/productpage", "-n", "shop")
	m.says([]string{"shop productpage", "waypoint 1/1"}, "ztunnel-config", "service", "--node", "n1")
	m.says([]string{"spiffe://cluster.local/ns/shop/sa/default Leaf Available true"}, "zc", "certificate", "deploy/productpage.shop")
	m.says([]string{"WORKLOAD DIRECTION LOCAL REMOTE REMOTE TARGET PROTOCOL"}, "zc", "connections", "deploy/productpage.shop")
	m.says([]string{"current log level is debug"}, "zc", "log", "--level", "debug")
	m.says([]string{"current log level is info"}, "zc", "log", "--reset")
	m.says([]string{"No validation issues found"}, "analyze", "-n", "shop")

	m.says([]string{
		"=== Enrolment ===", "in the mesh: its traffic is captured", "waypoint: waypoint-", "=== Sync state ===", "=== Routes and clusters ===", web + " 9080 http/v1",
		"=== Recent failures ===", "=== Analysis ===\n✔ No validation issues found in namespace shop.",
	}, "troubleshoot", "deploy/productpage", "-n", "shop")
	m.says([]string{"agent ztunnel-"}, "logs", "deploy/productpage", "-n", "shop")
	m.script()
	m.refusal(web)

	if _, errs := m.run(1, "pc", "route", "deploy/istiod.istio-system"); !strings.Contains(errs, "has no waypoint") {
		t.Errorf("a workload without a waypoint: %s", errs)
	}
	if _, errs := m.run(1, "pc", "route", "deploy/nobody.shop"); !strings.Contains(errs, "no deployment nobody in namespace shop") {
		t.Errorf("a workload that is not there: %s", errs)
	}
}

// refusal has the waypoint refuse what nothing before it can know to be wrong: a rule names
// roots that are not among the waypoint's files. Who refuses what, and why, is shown until the
// rule is mended, and what the waypoint had before goes on meanwhile.
func (m *shell) refusal(host string) {
	m.Helper()
	rule := func(policy string) {
		m.apply("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: productpage, namespace: shop}, spec: {host: productpage, subsets: [{name: v1, labels: {version: v1}" + policy + "}]}}")
	}
	subset := "inbound-vip|9080|http/v1|" + host
	reason := "trusted_ca: open /etc/certs/partner.pem: no such file or directory"
	status := func() (row, refused string) {
		out, _ := m.run(0, "proxy-status", "deploy/waypoint", "-n", "shop")
		for line := range strings.Lines(plain(out)) {
			if strings.HasPrefix(line, "waypoint-") && strings.Contains(line, ".shop refuses ") {
				refused = line
			} else if strings.HasPrefix(line, "waypoint-") {
				row = line
			}
		}
		return row, refused
	}
	rule(", trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/certs/partner.pem}}")
	m.eventually("the waypoint's refusal is shown", func() bool {
		row, refused := status()
		return strings.Contains(row, ".shop Kubernetes ERROR SYNCED") && strings.Contains(refused, ".shop refuses clusters "+subset+": ") && strings.Contains(refused, reason)
	})
	for _, args := range [][]string{{"proxy-status", "-o", "json"}, {"troubleshoot", "deploy/productpage", "-n", "shop"}, {"logs", "deploy/waypoint", "-n", "shop", "--tail", "2000"}} {
		m.says([]string{subset, reason}, args...)
	}
	m.says([]string{host + " 9080 http/v1 inbound-vip EDS"}, "pc", "clusters", "deploy/waypoint.shop", "--subset", "v1") // as it was before
	rule("")
	m.eventually("nothing is refused any more", func() bool {
		row, refused := status()
		return strings.Contains(row, ".shop Kubernetes SYNCED") && refused == ""
	})
}

// eventually waits for a condition.
func (m *shell) eventually(what string, condition func() bool) {
	m.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		if time.Now().After(deadline) {
			m.Fatalf("does not come: %s", what)
		}
		<-tick.C
	}
}

// script runs the tutorial's script for troubleshooting, unchanged but for the namespace,
// with the command line under istioctl's name. Only the line that looks into a sidecar's
// container differs: there is none.
func (m *shell) script() {
	m.Helper()
	text, err := os.ReadFile("../../../../shared/seed/scripts/troubleshoot.sh")
	if err != nil {
		m.T.Log("the tutorial's script is not here")
		return
	}
	dir := m.TempDir()
	for name, to := range map[string]string{"istioctl": m.binary, "kubectl": m.KubectlPath()} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			m.Fatal(err)
		}
	}
	cmd := exec.CommandContext(m.Context(), "bash", "-c", strings.Replace(string(text), `NAMESPACE="default"`, `NAMESPACE="shop"`, 1))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.Kubeconfig, "PATH="+dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		m.Fatalf("the tutorial's script: %v\n%s", err, out)
	}
	for _, want := range []string{"waypoint-", "SYNCED", `"virtualHosts"`, "productpage.shop.svc.cluster.local 9080 http/v1 inbound-vip EDS", "container istio-proxy is not valid", "No validation issues found"} {
		if !strings.Contains(plain(string(out)), want) {
			m.Errorf("the tutorial's script does not say %q:\n%s", want, out)
		}
	}
}
