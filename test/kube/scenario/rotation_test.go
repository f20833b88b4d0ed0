package scenario

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
	docs "github.com/fairlead-mesh/fairlead/test/kube/page"
)

// certificateLife is what agents ask for here, so that certificates are renewed every quarter of a minute.
const certificateLife = 30 * time.Second

// The page docs/certificates.md on real nodes: from the mesh's own root to a plugged-in CA, and to
// another intermediate, with agents whose kubelets bring them the roots, under load. Neither
// new connections fail nor one that is kept.
func TestTheRootIsReplacedUnderLoad(t *testing.T) {
	m := installed(t)
	const ns, agents = "rotation", "daemonset/ztunnel"
	m.Do(t, "-n", "istio-system", "patch", agents, "--type=json", "-p", `[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--cert-ttl=`+certificateLife.String()+`"}]`)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		for _, args := range [][]string{{"rollout", "undo", agents}, {"rollout", "status", agents, "--timeout=90s"}} {
			if _, err := m.Kubectl(ctx, append([]string{"-n", "istio-system"}, args...)...); err != nil {
				t.Error(err)
			}
		}
	})
	m.Do(t, "-n", "istio-system", "rollout", "status", agents, "--timeout=80s")
	m.Namespace(t, ns, true)
	m.Apply(t, server+"\n---\n"+client, "-n", ns)
	m.Do(t, "-n", ns, "rollout", "status", "deploy/server", "--timeout=60s")
	m.Do(t, "-n", ns, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	enrolled(t, m, ns)

	fresh := begin(t, m, ns, "fresh", "--concurrency", "8", "--rate", "40")
	kept := begin(t, m, ns, "kept", "--keep-alive", "--rate", "20")
	start := time.Now()
	d := docs.Open(t, root+"/docs/certificates.md", m.Cluster, "SETTLE=30", "LEAF_LIFE=40")
	d.Run(t, "Make a CA", 0)
	for i := range 3 {
		d.Run(t, "From the mesh's own root to your CA", i)
	}
	d.Run(t, "Another intermediate below the same root", 0)
	mesh.Eventually(t, "the control plane signs with the second intermediate", func() error {
		out, err := m.Kubectl(t.Context(), "-n", "istio-system", "logs", "deploy/istiod", "--tail=-1")
		if err == nil && !strings.Contains(out, "CN=ca2") {
			err = errors.New("not yet")
		}
		return err
	})
	t.Logf("two replacements in %s", time.Since(start).Round(time.Second))
	fresh.end("new connections")
	kept.end("one that is kept")
	// Pods that come now trust the new root alone.
	m.Do(t, "-n", "istio-system", "rollout", "restart", agents)
	m.Do(t, "-n", "istio-system", "rollout", "status", agents, "--timeout=80s")
	mesh.Eventually(t, "answers through new agents", func() error {
		_, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "http://server/")
		return err
	})
}
