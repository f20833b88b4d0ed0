package auth

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/page"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// certificates is the page docs/certificates.md, in a mesh where certificates live for seconds.
func certificates(t *testing.T, c *cluster.Cluster) *page.Page {
	t.Helper()
	return page.Open(t, "../../../docs/certificates.md", c, "SETTLE=18", "LEAF_LIFE=18")
}

// newMesh is a control plane with two agents' certificates, from the root of its own.
func newMesh(t *testing.T, name string, args ...string) (*plane.Plane, *traffic) {
	t.Helper()
	p := plane.Start(t, cluster.ForTest(t, cluster.Options{Name: name}), args...)
	p.Apply(world)
	for _, n := range []string{"n1", "n2"} {
		p.Node(n, nil)
	}
	one := p.Pod("istio-system", "ztunnel-n1", "ztunnel", "n1", "10.1.0.1", nil, nil)
	two := p.Pod("istio-system", "ztunnel-n2", "ztunnel", "n2", "10.1.1.1", nil, nil)
	p.Pod("shop", "web-1", "web", "n1", "10.1.0.2", nil, nil)
	p.Pod("shop", "db-1", "db", "n2", "10.1.1.2", nil, nil)
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	return p, begin(t, newNode(t, p, one, "web"), newNode(t, p, two, "db"))
}

// signedBy waits until new connections meet certificates of that CA alone.
func signedBy(p *plane.Plane, tr *traffic, ca string) {
	p.Until("certificates signed by "+ca+" alone", func() bool {
		tr.since()
		<-time.After(time.Second)
		got := slices.Collect(maps.Keys(tr.since()))
		return len(got) == 1 && strings.HasPrefix(got[0], ca)
	})
}

// The page docs/certificates.md, word for word, while connections are made: from the mesh's own
// root to a plugged-in CA, to another intermediate, to another root. None fails.
func TestRotationAsWritten(t *testing.T) {
	t.Parallel()
	p, tr := newMesh(t, "rotate")
	d := certificates(t, p.Cluster)
	signedBy(p, tr, "Fairlead root")
	d.Run(t, "Make a CA", 0)
	for i := range 3 {
		d.Run(t, "From the mesh's own root to your CA", i)
	}
	signedBy(p, tr, "ca1")
	d.Run(t, "Another intermediate below the same root", 0)
	signedBy(p, tr, "ca2")
	for i := range 3 {
		d.Run(t, "Another root", i)
	}
	signedBy(p, tr, "ca3")
	// Who starts now, with the new root alone, is served: the control plane's own
	// certificate has followed.
	agent := p.Pod("istio-system", "ztunnel-new", "ztunnel", "n1", "10.1.0.7", nil, nil)
	newcomer := newNode(t, p, agent, "web")
	if c, err := connect(newcomer, newcomer); err != nil {
		t.Errorf("a node that starts after all: %v", err)
	} else {
		_ = c.Close()
	}
	tr.check(t)
	// It warns of what was signed within a day, and here a day has 18 seconds.
	if !strings.Contains(p.Log(), "certificates signed in the last day are trusted no more") {
		t.Error("that an old root is dropped is not said")
	}
	if unrun := d.Unrun(); !slices.Equal(unrun, []string{"A new mesh with your CA"}) {
		t.Errorf("sections that were not run: %q", unrun)
	}
}

// A CA that is plugged in before the control plane is there.
func TestANewMeshWithACA(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{Name: "plugged"})
	d := certificates(t, c)
	d.Run(t, "Make a CA", 0)
	d.Run(t, "A new mesh with your CA", 0)
	p := plane.Start(t, c)
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	p.Until("your root", func() bool {
		return string(roots(t, p, "default")) == read(t, filepath.Join(d.Dir, "root1-cert.pem"))+"\n"
	})
	if out, err := c.Kubectl(t.Context(), "get", "secret", "-n", "istio-system", "istio-ca-secret"); err == nil {
		t.Errorf("a root of its own was made, too: %s", out)
	}
}

// Who replaces the root in one step has the control plane wait for him.
func TestRotationInOneStep(t *testing.T) {
	t.Parallel()
	p, tr := newMesh(t, "onestep", "--root-settle", "18s")
	d := certificates(t, p.Cluster)
	signedBy(p, tr, "Fairlead root")
	d.Run(t, "Make a CA", 0)
	d.Blocks["one step"] = []string{`
kubectl get secret -n istio-system istio-ca-secret -o 'jsonpath={.data.ca-cert\.pem}' | base64 -d > own-cert.pem
cat own-cert.pem root1-cert.pem > ca1/root-cert.pem
cacerts ca1 | kubectl create -f -`}
	d.Run(t, "one step", 0)
	p.Until("that it is said", func() bool { return strings.Contains(p.Log(), "a root that the mesh does not trust yet") })
	signedBy(p, tr, "ca1")
	tr.check(t)
}
