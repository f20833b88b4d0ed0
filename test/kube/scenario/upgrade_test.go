package scenario

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// One command takes the whole mesh to the next version, and another one back, while
// requests pass through a waypoint between the nodes: none of them fails.
func TestUpgradeAndBackUnderLoad(t *testing.T) {
	m := installed(t)
	const ns, next = "upgrade", "next"
	parts := []string{"control-plane", "node-agent", "waypoint"}
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "run", "./deploy/images", "--hub", mesh.Hub, "--tag", next, "--platform", "linux/"+runtime.GOARCH, "--out", dir)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("images: %v: %s", err, out)
	}
	for _, n := range m.Nodes {
		for _, image := range parts {
			if err := n.Import(t.Context(), filepath.Join(dir, image+".tar")); err != nil {
				t.Fatal(err)
			}
		}
	}
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	waypoint(t, m, ns)
	enrolled(t, m, ns)
	m.Do(t, "-n", ns, "label", "service", "server", "istio.io/use-waypoint=waypoint")
	for _, tag := range []string{next, mesh.Tag} {
		load := begin(t, m, ns, "load-"+tag, "--rate", "100", "--concurrency", "20")
		start := time.Now()
		if _, err := m.Fairlead(t.Context(), "upgrade", "-y", "--set", "tag="+tag); err != nil {
			t.Fatal(err)
		}
		mesh.Eventually(t, "all parts are of version "+tag, func() error {
			images := m.Do(t, "get", "pods", "-A", "-o", "jsonpath={range .items[*]}{.spec.containers[*].image}{\"\\n\"}{end}")
			for image := range strings.Lines(images) {
				name, version, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(image), mesh.Hub+"/"), ":")
				if slices.Contains(parts, name) && version != tag {
					return errors.New(image)
				}
			}
			return nil
		})
		// The control plane rolls the waypoint, which the command does not wait for.
		m.Do(t, "-n", ns, "rollout", "status", "deploy/waypoint", "--timeout=80s")
		load.end(fmt.Sprintf("to %s in %s under load", tag, time.Since(start).Round(time.Second)))
		if out, err := m.Fairlead(t.Context(), "verify-install"); err != nil {
			t.Error(out)
		}
	}
}
