package cluster

import (
	"context"
	"os"
	"testing"
)

// Required is the environment variable under which tests that need a cluster run, and
// fail where none can be had; `make test-kube` sets it. Without it they are skipped, since
// they take minutes.
const Required = "FAIRLEAD_KUBE"

// ForTest is a cluster that ends with the test, which is skipped where no cluster is
// asked for.
func ForTest(t testing.TB, o Options) *Cluster {
	t.Helper()
	Asked(t, o)
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

// possible says why such a cluster cannot be had here.
func (o Options) possible() error {
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

// Asked skips a test where no cluster is asked for, and fails it where one is and cannot
// be had. A test that prepares much for its cluster calls it first.
func Asked(t testing.TB, o Options) {
	t.Helper()
	if os.Getenv(Required) == "" {
		t.Skip("no cluster was asked for: `make test-kube` runs this")
	}
	if err := o.possible(); err != nil {
		t.Fatal(err)
	}
}
