package auth

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/ca/secret"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// With the chart's permissions and no others the control plane has its CA, proves callers,
// publishes roots, leads, and follows a CA that is plugged in; and it may not read other Secrets.
func TestTheChartsPermissions(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "rbac"})
	if out, err := c.KubectlInput(t.Context(), world, "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	p := plane.Start(t, c)
	p.Node("n1", nil)
	agent := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	s, _ := p.Agent(agent)
	p.Until("workloads", func() bool { return len(s.Snapshot().Workloads()) == 2 })
	conn := p.Dial(p.Token(agent))
	if _, err := plane.Sign(t, conn, "shop/web"); err != nil {
		t.Error(err)
	}
	if _, err := plane.Sign(t, conn, "shop/nobody"); err == nil || !strings.Contains(err.Error(), "no pod of shop/nobody") {
		t.Errorf("an account without a pod, for which the API server is asked: %v", err)
	}
	have := func(namespace, want string) {
		t.Helper()
		p.Until("roots in "+namespace, func() bool { return strings.TrimSpace(string(roots(t, p, namespace))) == want })
	}
	own := read(t, p.Roots)
	have("shop", own)
	p.Kubectl("patch", "configmap", "-n", "shop", rootcert.Name, "--type=merge", "-p", `{"data":{"root-cert.pem":"evil"}}`)
	have("shop", own)
	p.Kubectl("delete", "configmap", "-n", "shop", rootcert.Name)
	have("shop", own)
	p.Kubectl("delete", "secret", "-n", "istio-system", secret.Own)
	p.Until("the root's Secret", func() bool {
		_, err := c.Kubectl(t.Context(), "get", "secret", "-n", "istio-system", secret.Own)
		return err == nil
	})
	d := certificates(t, c)
	d.Run(t, "Make a CA", 0)
	d.Blocks["plug in"] = []string{"cacerts ca1 | kubectl create -f -"}
	d.Run(t, "plug in", 0)
	p.Until("the root that was plugged in", func() bool {
		return strings.Contains(string(roots(t, p, "shop")), read(t, filepath.Join(d.Dir, "root1-cert.pem")))
	})
	p.Stop() // gives up the Lease
	if got := holder(t, p); got != "" {
		t.Errorf("the Lease is held by %s", got)
	}
	if strings.Contains(p.Log(), "forbidden") {
		t.Errorf("something is forbidden:\n%s", p.Log())
	}

	for _, forbidden := range []string{
		"get secret/other -n istio-system", "list secrets -n istio-system", "list secrets -n shop", "update secret/istio-ca-secret -n istio-system", "delete secret/istio-ca-secret -n istio-system",
		"get secret/istio-ca-secret -n shop", "patch configmap/other -n shop", "delete configmap/istio-ca-root-cert -n shop", "update lease/other -n istio-system",
		"create pods -n shop", "create pods --subresource=exec -n shop", "create serviceaccounts --subresource=token -n shop", "create clusterrolebindings", "impersonate users",
	} {
		args := append([]string{"auth", "can-i", "--quiet", "--as=system:serviceaccount:istio-system:" + plane.Account}, strings.Fields(forbidden)...)
		if _, err := c.Kubectl(t.Context(), args...); err == nil {
			t.Errorf("the control plane may %s", forbidden)
		}
	}
}
