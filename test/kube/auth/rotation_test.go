package auth

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

// document is a page of the docs whose blocks of shell are run.
type document struct {
	sections map[string][]string // the blocks, by heading
	dir      string
	cluster  *cluster.Cluster
	ran      []string
}

// open reads the page and the heads of its sections.
func openDocument(t *testing.T, c *cluster.Cluster) *document {
	t.Helper()
	d := &document{sections: map[string][]string{}, dir: t.TempDir(), cluster: c}
	heading, block := "", []string(nil)
	for _, line := range strings.Split(read(t, "../../../docs/certificates.md"), "\n") {
		switch {
		case block != nil && line == "```":
			d.sections[heading] = append(d.sections[heading], strings.Join(block[1:], "\n"))
			block = nil
		case block != nil:
			block = append(block, line)
		case line == "```sh":
			block = []string{""}
		case strings.HasPrefix(line, "## "):
			heading = strings.TrimPrefix(line, "## ")
		}
	}
	if err := os.Symlink(c.KubectlPath(), filepath.Join(d.dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	return d
}

// run runs one block of a section. Functions that earlier blocks define are there.
func (d *document) run(t *testing.T, section string, block int) {
	t.Helper()
	if block >= len(d.sections[section]) {
		t.Fatalf("section %q has %d blocks", section, len(d.sections[section]))
	}
	text := d.sections[section][block]
	script := "set -eo pipefail\ncd " + d.dir + "\n[ ! -f functions ] || . ./functions\n" + text + "\ndeclare -f > functions\n"
	cmd := exec.Command("bash", "-c", script)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+d.cluster.Kubeconfig, "PATH="+d.dir+":"+os.Getenv("PATH"), "SETTLE=18", "LEAF_LIFE=18", "HOME="+d.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s, block %d: %v\n%s\n%s", section, block, err, text, out)
	}
	d.ran = append(d.ran, section)
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
	d := openDocument(t, p.Cluster)
	signedBy(p, tr, "Fairlead root")
	d.run(t, "Make a CA", 0)
	for i := range 3 {
		d.run(t, "From the mesh's own root to your CA", i)
	}
	signedBy(p, tr, "ca1")
	d.run(t, "Another intermediate below the same root", 0)
	signedBy(p, tr, "ca2")
	for i := range 3 {
		d.run(t, "Another root", i)
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
	for section, blocks := range d.sections {
		if section != "A new mesh with your CA" && len(blocks) > 0 && !slices.Contains(d.ran, section) {
			t.Errorf("section %q was not run", section)
		}
	}
}

// A CA that is plugged in before the control plane is there.
func TestANewMeshWithACA(t *testing.T) {
	t.Parallel()
	c := cluster.ForTest(t, cluster.Options{Name: "plugged"})
	d := openDocument(t, c)
	d.run(t, "Make a CA", 0)
	d.run(t, "A new mesh with your CA", 0)
	p := plane.Start(t, c)
	p.Until("the control plane", func() bool { return strings.HasPrefix(p.Get("/healthz/ready"), "200") })
	p.Until("your root", func() bool {
		return string(roots(t, p, "default")) == read(t, filepath.Join(d.dir, "root1-cert.pem"))+"\n"
	})
	if out, err := c.Kubectl(t.Context(), "get", "secret", "-n", "istio-system", "istio-ca-secret"); err == nil {
		t.Errorf("a root of its own was made, too: %s", out)
	}
}

// Who replaces the root in one step has the control plane wait for him.
func TestRotationInOneStep(t *testing.T) {
	t.Parallel()
	p, tr := newMesh(t, "onestep", "--root-settle", "18s")
	d := openDocument(t, p.Cluster)
	signedBy(p, tr, "Fairlead root")
	d.run(t, "Make a CA", 0)
	d.sections["one step"] = []string{`
kubectl get secret -n istio-system istio-ca-secret -o 'jsonpath={.data.ca-cert\.pem}' | base64 -d > own-cert.pem
cat own-cert.pem root1-cert.pem > ca1/root-cert.pem
cacerts ca1 | kubectl create -f -`}
	d.run(t, "one step", 0)
	p.Until("that it is said", func() bool { return strings.Contains(p.Log(), "a root that the mesh does not trust yet") })
	signedBy(p, tr, "ca1")
	tr.check(t)
}
