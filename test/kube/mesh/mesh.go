// Package mesh is a real cluster with this tree's Fairlead in it: images built from the
// tree, given to the nodes, and installed with `fairlead install`. Scenarios under
// test/kube import it; what it does not do for them they do with kubectl.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Hub and Tag are where the nodes find the images.
const (
	Hub = "localhost/fairlead"
	Tag = "test"
)

// Mesh is a cluster with Fairlead installed.
type Mesh struct {
	*cluster.Cluster
	// Binary is the `fairlead` of the tree.
	Binary string
}

// Built is what Build made.
type Built struct {
	// Binary is `fairlead`; Images are archives of the product and of the workloads.
	Binary string
	Images []string
}

// Program builds one of the repository's programs, `fairlead` or another below its cmd, into
// dir, and returns its path. It says of itself that it is of version Tag.
func Program(ctx context.Context, root, dir, name string) (string, error) {
	binary := filepath.Join(dir, name)
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "grpcnotrace",
		"-ldflags", "-X github.com/fairlead-mesh/fairlead/pkg/telemetry.Version="+Tag, "-o", binary, "./cmd/"+name)
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w: %s", name, err, out)
	}
	return binary, nil
}

// Build builds the product's images and the workloads' from the repository at
// root, into dir: a quarter of a minute when the tree is built already.
func Build(ctx context.Context, root, dir string) (*Built, error) {
	return BuildAs(ctx, root, dir, Hub, Tag)
}

// BuildAs is Build, with the product's images under another hub and tag.
func BuildAs(ctx context.Context, root, dir, hub, tag string) (*Built, error) {
	binary, err := Program(ctx, root, dir, "fairlead")
	if err != nil {
		return nil, err
	}
	workloads, err := apps.Write(ctx, binary, dir)
	if err != nil {
		return nil, err
	}
	images := exec.CommandContext(ctx, "go", "run", "./deploy/images", "--hub", hub, "--tag", tag, "--platform", "linux/"+arch(), "--out", dir)
	images.Dir = root
	if out, err := images.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("images: %w: %s", err, out)
	}
	b := &Built{Binary: binary, Images: []string{workloads}}
	for _, name := range []string{"control-plane", "node-agent", "waypoint"} {
		b.Images = append(b.Images, filepath.Join(dir, name+".tar"))
	}
	return b, nil
}

func arch() string {
	out, err := exec.Command("go", "env", "GOARCH").Output()
	if err != nil {
		return "amd64"
	}
	return strings.TrimSpace(string(out))
}

// Start brings up a cluster of two nodes and installs Fairlead with the further
// arguments of `fairlead install`.
func Start(ctx context.Context, name string, b *Built, install ...string) (*Mesh, error) {
	return StartOn(ctx, cluster.Options{Name: name, Nodes: 2}, b, install...)
}

// StartOn is Start with a cluster as the options say, which has the images of b.
func StartOn(ctx context.Context, o cluster.Options, b *Built, install ...string) (*Mesh, error) {
	o.Images = b.Images
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	m := &Mesh{Cluster: c, Binary: b.Binary}
	if err := m.Install(ctx, install...); err != nil {
		return nil, errors.Join(err, m.explain(ctx), c.Stop())
	}
	return m, nil
}

// Install installs the tree's images and waits until all are ready.
func (m *Mesh) Install(ctx context.Context, args ...string) error {
	_, err := m.Fairlead(ctx, append([]string{"install", "-y", "--set", "hub=" + Hub, "--set", "tag=" + Tag, "--readiness-timeout", "2m"}, args...)...)
	return err
}

// explain is what the mesh's namespace looks like, as an error.
func (m *Mesh) explain(ctx context.Context) error {
	pods, _ := m.Kubectl(ctx, "-n", "istio-system", "get", "pods", "-o", "wide")
	events, _ := m.Kubectl(ctx, "-n", "istio-system", "get", "events")
	logs, _ := m.Kubectl(ctx, "-n", "istio-system", "logs", "deploy/istiod", "--tail=30")
	return fmt.Errorf("%s\n%s\n%s", pods, events, logs)
}

// Fairlead runs the command line as administrator and returns what it prints.
func (m *Mesh) Fairlead(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.Binary, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+m.Kubeconfig)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// Do runs kubectl and fails the test where it fails.
func (m *Mesh) Do(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := m.Kubectl(ctx, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Apply applies manifests and fails the test where they are refused.
func (m *Mesh) Apply(t testing.TB, manifests string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := m.KubectlInput(ctx, manifests, append([]string{"apply", "-f-"}, args...)...); err != nil {
		t.Fatal(err)
	}
}

// Namespace makes a namespace that goes with the test; with enrolled, a part of the mesh.
func (m *Mesh) Namespace(t testing.TB, name string, enrolled bool) {
	t.Helper()
	m.Do(t, "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := m.Kubectl(ctx, "delete", "namespace", name, "--wait=false"); err != nil {
			t.Error(err)
		}
	})
	if enrolled {
		m.Do(t, "label", "namespace", name, "istio.io/dataplane-mode=ambient")
	}
}

// Exec runs a command in a pod ("POD" or "deploy/NAME"); its failure is the caller's to judge.
func (m *Mesh) Exec(ctx context.Context, namespace, pod string, args ...string) (string, error) {
	return m.Kubectl(ctx, append([]string{"-n", namespace, "exec", pod, "--"}, args...)...)
}

// patience bounds what happens at once on an idle machine.
const patience = 90 * time.Second

// Eventually waits until ok returns nil, and fails the test with its last error.
func Eventually(t testing.TB, what string, ok func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s: %v", patience, what, err)
		}
	}
}
