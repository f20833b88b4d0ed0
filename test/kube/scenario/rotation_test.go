package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
	docs "github.com/fairlead-mesh/fairlead/test/kube/page"
)

// certificateLife is what agents ask for here, so that certificates are renewed every half minute.
const certificateLife = 60 * time.Second

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

	// The load lasts until after the last step.
	loads := map[string]chan string{}
	for what, more := range map[string][]string{"new connections": {"--concurrency", "8", "--rate", "40"}, "one that is kept": {"--keep-alive", "--rate", "20"}} {
		done := make(chan string, 1)
		loads[what] = done
		go func() {
			out, err := m.Exec(t.Context(), ns, "client", append([]string{"fairlead", "app", "load", "--url", "http://server/", "--duration", "300s", "--timeout", "10s"}, more...)...)
			if err != nil {
				out += " " + err.Error()
			}
			done <- out
		}()
	}
	begin := time.Now()
	d := docs.Open(t, root+"/docs/certificates.md", m.Cluster, "SETTLE=60", "LEAF_LIFE=70")
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
	took := time.Since(begin)
	for what, done := range loads {
		out := <-done
		var a answers
		if err := json.Unmarshal([]byte(strings.TrimSpace(out)), &a); err != nil {
			t.Errorf("%s: load: %v: %s", what, err, out)
			continue
		}
		if a.Requests < 1000 || len(a.Errors) > 0 || a.OK != a.Requests {
			t.Errorf("%s: %s", what, out)
		} else {
			t.Logf("%s: %d requests, none failed", what, a.Requests)
		}
	}
	t.Logf("two replacements in %s", took.Round(time.Second))
	if took > 240*time.Second {
		t.Error("the load did not last until every certificate was renewed below the second intermediate")
	}
	// Pods that come now trust the new root alone.
	m.Do(t, "-n", "istio-system", "rollout", "restart", agents)
	m.Do(t, "-n", "istio-system", "rollout", "status", agents, "--timeout=80s")
	mesh.Eventually(t, "answers through new agents", func() error {
		_, err := m.Exec(t.Context(), ns, "client", "curl", "-sS", "-m", "5", "http://server/")
		return err
	})
}
