package auth

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/ca/secret"
	"github.com/fairlead-mesh/fairlead/pkg/control/leader"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// replicas starts several control planes at once.
func replicas(t *testing.T, c *cluster.Cluster, n int) []*plane.Plane {
	t.Helper()
	all := make([]*plane.Plane, n)
	for i := range all {
		all[i] = plane.Start(t, c, "--identity", fmt.Sprint("istiod-", i))
	}
	var ready sync.WaitGroup
	for _, p := range all {
		ready.Go(func() {
			for !strings.HasPrefix(p.Get("/healthz/ready"), "200") {
				select {
				case <-t.Context().Done():
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	ready.Wait()
	return all
}

// leads waits until one of them says that it leads, and returns it, the others and how
// long that took.
func leads(p *plane.Plane, all ...*plane.Plane) (*plane.Plane, time.Duration) {
	start := time.Now()
	var found *plane.Plane
	p.Until("a leader", func() bool {
		for _, r := range all {
			if value(r, "fairlead_leader") == 1 {
				found = r
				return true
			}
		}
		return false
	})
	return found, time.Since(start)
}

func other(all []*plane.Plane, p *plane.Plane) *plane.Plane {
	if all[0] == p {
		return all[1]
	}
	return all[0]
}

// holder is who holds the leader's Lease, "" for nobody.
func holder(t *testing.T, p *plane.Plane) string {
	t.Helper()
	l, err := p.Kube.CoordinationV1().Leases("istio-system").Get(t.Context(), leader.Lease, metav1.GetOptions{})
	if err != nil || l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

// roots are those that a namespace has, or nil.
func roots(t *testing.T, p *plane.Plane, namespace string) []byte {
	t.Helper()
	c, err := p.Kube.CoreV1().ConfigMaps(namespace).Get(t.Context(), rootcert.Name, metav1.GetOptions{})
	if err != nil {
		return nil
	}
	return []byte(c.Data[rootcert.Key])
}

// Two replicas that start together have one root, serve both, and one of them writes. When
// that one dies the other follows within seconds; one that is asked to stop gives up its
// Lease and is followed at once.
func TestTwoReplicas(t *testing.T) {
	c := cluster.ForTest(t, cluster.Options{Name: "replicas"})
	if out, err := c.KubectlInput(t.Context(), world, "apply", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", "../../../deploy/charts/fairlead/crds/istio.yaml"}, {"wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"},
	} {
		if out, err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err, out)
		}
	}
	all := replicas(t, c, 2)
	first, second := read(t, all[0].Roots), read(t, all[1].Roots)
	if first != second || !strings.Contains(first, "BEGIN CERTIFICATE") {
		t.Fatalf("two roots:\n%s\n%s", first, second)
	}
	all[0].Node("n1", nil)
	agent := all[0].Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	all[0].Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	for i, p := range all {
		s, _ := p.Agent(agent)
		p.Until("workloads of each replica", func() bool { return len(s.Snapshot().Workloads()) == 2 })
		if got, err := plane.Sign(t, p.Dial(p.Token(agent)), "shop/web"); err != nil || got != "spiffe://cluster.local/ns/shop/sa/web" {
			t.Errorf("replica %d: %s, %v", i, got, err)
		}
	}

	leading, _ := leads(all[0], all...)
	following := other(all, leading)
	if value(following, "fairlead_leader") != 0 {
		t.Error("both lead")
	}
	// It dies in the middle of its work.
	if err := syscall.Kill(leading.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	following.Apply(`{apiVersion: v1, kind: Namespace, metadata: {name: late}}
---
{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: late, namespace: shop}, spec: {selector: {matchLabels: {app: web}}, action: DENY, rules: [{from: [{source: {namespaces: [evil]}}]}]}}`)
	if _, took := leads(following, following); took > 20*time.Second {
		t.Errorf("the leader's death was followed after %v", took)
	} else {
		t.Logf("the leader's death was followed after %v", took)
	}
	following.Until("the roots of a namespace that came between", func() bool { return bytes.Contains(roots(t, following, "late"), []byte(first)) })

	following.Until("the status of an object that came between", func() bool {
		out, err := c.Kubectl(t.Context(), "get", "authorizationpolicy", "-n", "shop", "late", "-o", "jsonpath={.status.conditions[*].type}")
		return err == nil && out != ""
	})

	leading.Stop() // what there is of it
	leading.Run()
	leading.Until("the one that died", func() bool { return strings.HasPrefix(leading.Get("/healthz/ready"), "200") })
	if got := read(t, leading.Roots); got != first {
		t.Error("it has another root now")
	}
	// Now the other one is asked to stop.
	start := time.Now()
	following.Stop()
	if got := holder(t, leading); strings.HasPrefix(got, "istiod-") && got == "istiod-"+index(all, following) {
		t.Errorf("the Lease is still held by %s", got)
	}
	leads(leading, leading)
	if took := time.Since(start); took > 6*time.Second {
		t.Errorf("a leader that stopped was followed after %v", took)
	} else {
		t.Logf("a leader that stopped was followed after %v", took)
	}
}

func index(all []*plane.Plane, p *plane.Plane) string {
	for i := range all {
		if all[i] == p {
			return fmt.Sprint(i)
		}
	}
	return ""
}

// The roots are in every namespace, at once in a new one, and put right where somebody
// edits or deletes them.
func TestTheRootsInNamespaces(t *testing.T) {
	p := plane.Start(t, cluster.ForTest(t, cluster.Options{Name: "roots"}))
	p.Apply(world)
	p.Until("roots in a file", func() bool { _, err := os.Stat(p.Roots); return err == nil })
	want := []byte(read(t, p.Roots) + "\n")
	have := func(namespace string) func() bool {
		return func() bool { return bytes.Equal(roots(t, p, namespace), want) }
	}
	for _, n := range []string{"istio-system", "shop", "default"} {
		p.Until("roots in "+n, have(n))
	}
	start := time.Now()
	for i := range 20 {
		p.Kubectl("create", "namespace", fmt.Sprint("new-", i))
	}
	for i := range 20 {
		p.Until("roots in a new namespace", have(fmt.Sprint("new-", i)))
	}
	t.Logf("20 namespaces and their roots in %v", time.Since(start))
	p.Kubectl("delete", "configmap", "-n", "shop", rootcert.Name)
	p.Until("what was deleted", have("shop"))
	p.Kubectl("patch", "configmap", "-n", "shop", rootcert.Name, "--type=merge", "-p", `{"data":{"root-cert.pem":"evil","other":"kept"}}`)
	p.Until("what was edited", have("shop"))
	if got := p.Kubectl("get", "configmap", "-n", "shop", rootcert.Name, "-o", "jsonpath={.data.other}"); got != "kept" {
		t.Errorf("another key: %q", got)
	}
	for _, n := range []string{"kube-system", "kube-public"} {
		if roots(t, p, n) != nil {
			t.Errorf("%s is Kubernetes' own and has roots", n)
		}
	}
	p.Kubectl("delete", "namespace", "new-0", "--wait=false")
	p.Until("no complaint about a namespace that goes", func() bool { return value(p, "fairlead_root_configmaps_pending") == 0 })
	if strings.Contains(p.Log(), "roots are not published") {
		t.Error(p.Log())
	}
	// The root's Secret is put back as it was.
	key := p.Kubectl("get", "secret", "-n", "istio-system", secret.Own, "-o", `jsonpath={.data.ca-key\.pem}`)
	p.Kubectl("delete", "secret", "-n", "istio-system", secret.Own)
	p.Until("the root's Secret", func() bool {
		out, err := p.Cluster.Kubectl(t.Context(), "get", "secret", "-n", "istio-system", secret.Own, "-o", `jsonpath={.data.ca-key\.pem}`)
		return err == nil && out == key
	})
}
