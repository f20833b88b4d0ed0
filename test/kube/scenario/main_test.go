// Package scenario is Fairlead on real Kubernetes, promise by promise: two nodes
// with kubelet and containerd, the tree's images, `fairlead install`. A scenario
// takes the mesh that all share with installed(t) and works in a namespace of its own.
// `make test-kube` runs them; elsewhere they are skipped.
package scenario

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// root is the repository, seen from here.
const root = "../../.."

// shared is the mesh of all scenarios: installed by the first that asks.
var shared struct {
	once sync.Once
	m    *mesh.Mesh
	err  error
	dir  string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.m != nil && os.Getenv(cluster.Keep) == "" {
		if err := shared.m.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "end of the cluster:", err)
			code = 1
		}
	}
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// installed is the shared mesh; the test is skipped where no cluster was asked for.
func installed(t *testing.T) *mesh.Mesh {
	t.Helper()
	if os.Getenv(cluster.Required) == "" {
		t.Skip("no cluster was asked for: `make test-kube` runs this")
	}
	shared.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		if shared.dir, shared.err = os.MkdirTemp("", "scenario-*"); shared.err != nil {
			return
		}
		built, err := mesh.Build(ctx, root, shared.dir)
		if err != nil {
			shared.err = err
			return
		}
		begin := time.Now()
		shared.m, shared.err = mesh.Start(ctx, "scenario", built)
		fmt.Fprintf(os.Stderr, "cluster and mesh are up after %s\n", time.Since(begin).Round(time.Second))
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.m
}
