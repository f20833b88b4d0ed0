// Package guides runs the commands that the guides in docs/ show, page by page, on two real nodes:
// a command that a guide names works as it stands there.
package guides

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
	"github.com/fairlead-mesh/fairlead/test/kube/page"
)

const root = "../../.."

// Guides are run in this order: each finds what those before it left, the sample in the namespace
// default, and, but for the first, the mesh. The last one takes it away.
var guides = []struct {
	page string
	// must are what its commands have to print.
	must []string
}{
	{"upgrade.md", []string{"control plane version"}},
	{"coming-from/istio-sidecars.md", []string{"waypoint default/waypoint applied", "namespace/default labeled"}},
	{"coming-from/istio-ambient.md", nil},
	{"coming-from/linkerd.md", []string{"enabled"}},
	{"coming-from/cilium.md", nil},
	{"cni.md", nil},
	{"troubleshooting.md", []string{"SYNCED", "HBONE"}},
	{"install.md", []string{"enabled"}},
}

func TestGuides(t *testing.T) {
	if os.Getenv(cluster.Required) == "" {
		t.Skip("no cluster was asked for: `make test-kube` runs this")
	}
	dir := t.TempDir()
	hub, tag := published(t, dir)
	built, err := mesh.BuildAs(t.Context(), root, dir, hub, tag)
	if err != nil {
		t.Fatal(err)
	}
	c := cluster.ForTest(t, cluster.Options{Name: "guides", Nodes: 2, Images: built.Images})
	m := &mesh.Mesh{Cluster: c, Binary: built.Binary}
	install := func() {
		if out, err := m.Fairlead(t.Context(), "install", "-y"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	install()
	sample, err := filepath.Abs(filepath.Join(root, "examples", "bookinfo", "bookinfo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m.Do(t, "-n", "default", "apply", "-f", sample)
	m.Do(t, "-n", "default", "wait", "--for=condition=Ready", "pod", "--all", "--timeout=80s")
	for _, g := range guides {
		ok := t.Run(g.page, func(t *testing.T) {
			if g.page == "install.md" {
				if out, err := m.Fairlead(t.Context(), "uninstall", "--purge", "-y"); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				mesh.Eventually(t, "the mesh is gone", func() error {
					if out, err := m.Kubectl(t.Context(), "get", "namespace", "istio-system", "--ignore-not-found"); err != nil || out != "" {
						return errors.New("istio-system is there")
					}
					return nil
				})
			}
			p := page.Open(t, filepath.Join(root, "docs", g.page), c)
			p.Program(t, "fairlead", built.Binary)
			said := p.RunAll(t)
			for _, want := range g.must {
				if !strings.Contains(said, want) {
					t.Errorf("no command printed %q:\n%s", want, said)
				}
			}
		})
		if !ok {
			return // the next pages need what this one should have left
		}
	}
}

// published are the hub and tag that the tree's installer asks for unless it is told others.
func published(t *testing.T, dir string) (hub, tag string) {
	t.Helper()
	binary, err := mesh.Program(t.Context(), root, dir, "fairlead")
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "manifest", "generate").Output()
	if err != nil {
		t.Fatal(err)
	}
	image := regexp.MustCompile(`image: "?(\S+)/control-plane:([^\s"]+)`).FindSubmatch(out)
	if image == nil {
		t.Fatal("the manifest names no image of the control plane")
	}
	return string(image[1]), string(image[2])
}
