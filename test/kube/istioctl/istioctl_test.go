// Package istioctl asks our control plane on a real API server what istioctl asks
// Istio's. It drives the binary that test/kube/build.sh builds.
package istioctl

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/cli/controlplane"
	"github.com/fairlead-mesh/fairlead/pkg/cli/kube"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

const objects = `
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: ztunnel, namespace: istio-system}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: web, namespace: shop}}
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}}
`

const wrong = `
{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: web, namespace: shop}, spec: {hosts: [web], http: [{route: [{destination: {host: nobody}}]}]}}
`

// istioctl runs it as the cluster's administrator.
func istioctl(t *testing.T, p *plane.Plane, args ...string) (string, error) {
	t.Helper()
	path, err := cluster.Part("istioctl")
	if err != nil {
		if os.Getenv(cluster.Required) != "" {
			t.Fatal(err)
		}
		t.Skipf("`make test-interop` builds what this needs: %v", err)
	}
	cmd := exec.Command(path, append(args, "--kubeconfig", p.Cluster.Kubeconfig)...)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var rows []string
	for line := range strings.Lines(string(out)) {
		rows = append(rows, strings.Join(strings.Fields(line), " "))
	}
	return strings.Join(rows, "\n"), err
}

// TestIstioctlAsksOurControlPlane has `istioctl proxy-status` list who is connected to
// our control plane, and `istioctl analyze` look at what it serves.
func TestIstioctlAsksOurControlPlane(t *testing.T) {
	p := plane.Start(t, cluster.ForTest(t, cluster.Options{Name: "istioctl"}))
	for _, name := range []string{"istio", "gateway-api"} {
		text, err := os.ReadFile("../../../deploy/charts/fairlead/crds/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		p.Apply(string(text))
	}
	p.Kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	p.Apply(objects)
	p.Node("n1", nil)
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", map[string]string{"app": "ztunnel"}, nil)
	p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", map[string]string{"app": "web"}, map[string]string{"ambient.istio.io/redirection": "enabled"})
	p.Until("ready", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	p.Agent(agent)
	p.Until("the agent is connected", func() bool { return strings.Contains(p.Get("/debug/syncz"), "ztunnel-n1") })

	got := ""
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("istioctl said last:\n%s", got)
		}
	})
	p.Until("istioctl proxy-status shows the agent in sync", func() bool {
		var err error
		got, err = istioctl(t, p, "proxy-status", "--xds-address", p.Address)
		if err != nil {
			got += err.Error()
		}
		return err == nil && strings.Contains(got, "ztunnel-n1.istio-system") && strings.Contains(got, "2 (")
	})
	t.Log("\n" + got)
	verbose, err := istioctl(t, p, "proxy-status", "--xds-address", p.Address, "--verbosity", "1")
	if err != nil || !strings.Contains(verbose, "SYNCED") {
		t.Errorf("istioctl proxy-status --verbosity 1: %v\n%s", err, verbose)
	}
	addressIsAsked(t, p)
	if got, err := istioctl(t, p, "analyze", "-n", "shop"); err != nil || !strings.Contains(got, "No validation issues found") {
		t.Errorf("istioctl analyze: %v\n%s", err, got)
	}
	p.Apply(wrong)
	if got, err := istioctl(t, p, "analyze", "-n", "shop"); err == nil || !strings.Contains(got, "IST0101") {
		t.Errorf("istioctl analyze does not see a host that is not there: %v\n%s", err, got)
	}
}

// addressIsAsked has our own command line ask the control plane by its address, and who may
// not, or asks another than it means to, hear nothing.
func addressIsAsked(t *testing.T, p *plane.Plane) {
	t.Helper()
	const system = "istio-system"
	ask := func(as string, at controlplane.Flags) (controlplane.Answer, error) {
		client, err := (&kube.Flags{Kubeconfig: p.Cluster.Kubeconfig, Impersonate: as}).Connect()
		if err != nil {
			t.Fatal(err)
		}
		return at.Ask(t.Context(), client, system)
	}
	at := controlplane.Flags{Address: p.Address}
	got, err := ask("", at)
	if err != nil || got.Version == "" || got.Identity == "" || len(got.Clients) != 1 || got.Clients[0].Pod != "ztunnel-n1" {
		t.Errorf("the control plane at its address says %+v: %v", got, err)
	}
	p.Kubectl("create", "clusterrolebinding", "looker", "--clusterrole=view", "--user=looker") // may read, and make no tokens
	if got, err := ask("looker", at); err == nil || !strings.Contains(err.Error(), "serviceaccounts/token") && !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("who may make no tokens hears %+v: %v", got, err)
	}
	at.Authority = "other.example"
	if got, err := ask("", at); err == nil || !strings.Contains(err.Error(), "other.example") {
		t.Errorf("a control plane of another name is asked: %+v: %v", got, err)
	}
	at.Authority, at.CertDir = "", t.TempDir()
	if err := os.WriteFile(filepath.Join(at.CertDir, "root-cert.pem"), otherRoot(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ask("", at); err == nil || !strings.Contains(err.Error(), "certificate signed by unknown authority") {
		t.Errorf("a control plane of another root is asked: %+v: %v", got, err)
	}
}

// otherRoot is a root that has signed nothing.
func otherRoot(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
