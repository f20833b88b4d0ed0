package cluster

import (
	"context"
	"os"
	"testing"
)

// Required is the environment variable under which a test that needs a cluster
// fails, and is not skipped, where none can be had. `make test-kube` and CI set it.
const Required = "FAIRLEAD_KUBE"

// ForTest is a cluster that ends with the test. The test is skipped, with the
// reason, where the parts are not built.
func ForTest(t testing.TB, o Options) *Cluster {
	t.Helper()
	if err := o.Possible(); err != nil {
		if os.Getenv(Required) != "" {
			t.Fatal(err)
		}
		t.Skipf("no cluster for this test: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), startup)
	defer cancel()
	c, err := Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the end of the control plane's log:\n%s", c.Log())
		}
		if err := c.Stop(); err != nil {
			t.Errorf("end of the cluster: %v", err)
		}
	})
	return c
}

// Possible says why such a cluster cannot be had here.
func (o Options) Possible() error {
	if err := o.complete(); err != nil {
		return err
	}
	parts := []string{"control-plane", "kubectl"}
	if o.Nodes > 0 {
		parts = append(parts, "node", "coredns")
	}
	for _, p := range parts {
		if _, err := o.part(p); err != nil {
			return err
		}
	}
	return nil
}
