package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// fakes are stand-ins for the mesh's binaries, by name: what they are told, they
// write down. The real ones run in test/e2e.
var fakes = map[string]func() error{"node-agent": fakeAgent, "control-plane": fakeControlPlane}

// fakeBinaries is a directory with the stand-ins.
func fakeBinaries(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name := range fakes {
		if err := os.Symlink(self, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// flagsOf reads only the flags that the caller wants.
func flagsOf(names ...string) map[string]string {
	out := map[string]string{}
	for i := 1; i+1 < len(os.Args); i++ {
		for _, n := range names {
			if os.Args[i] == "--"+n {
				out[n] = os.Args[i+1]
			}
		}
	}
	return out
}

func fakeControlPlane() error {
	f := flagsOf("root-cert-out", "listen", "token-keys")
	if _, err := os.Stat(f["token-keys"]); err != nil {
		return err
	}
	if err := os.WriteFile(f["root-cert-out"], []byte("root"), 0o600); err != nil {
		return err
	}
	l, err := net.Listen("tcp", f["listen"])
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		_ = c.Close()
	}
}

// fakeAgent enrols everything. For each change it writes a line: what it was
// asked, and how many processes run in the pod at that moment.
func fakeAgent() error {
	if len(os.Args) > 1 && os.Args[1] == "purge" {
		return nil
	}
	f := flagsOf("enrol-socket", "root-cert", "token-file", "cert-dir", "node", "instance", "state-dir")
	for _, file := range []string{"root-cert", "token-file", "cert-dir"} {
		if _, err := os.Stat(f[file]); err != nil {
			return err
		}
	}
	m, err := podwatch.NewManager(podwatch.Options{
		Enroller: fakeEnroller{}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), File: filepath.Join(f["state-dir"], "pods.json"),
	})
	if err != nil {
		return err
	}
	if err := m.Restore(context.Background()); err != nil {
		return err
	}
	m.Remember()
	go func() {
		_ = http.ListenAndServe(":15021", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			select {
			case <-m.Complete():
			default:
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
	}()
	go func() {
		_ = http.ListenAndServe("localhost:15000", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]any{"workloads": derivedPods(filepath.Join(f["state-dir"], "../.."))})
		}))
	}()
	srv, err := podwatch.Listen(f["enrol-socket"], m, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	return srv.Serve(context.Background())
}

// derivedPods are those that a control plane would have told of.
func derivedPods(run string) (out []heard) {
	text, err := os.ReadFile(filepath.Join(run, "lab.json"))
	if err != nil {
		return nil
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(derivedDir(r.Dir), "pod_*.yaml"))
	if err != nil {
		return nil
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var p corev1.Pod
		if yaml.Unmarshal(text, &p) != nil {
			continue
		}
		h := heard{Name: p.Name, Namespace: p.Namespace, Protocol: "TCP", Status: "Healthy"}
		if p.Annotations[redirectionAnnotation] == redirectionEnabled {
			h.Protocol = "HBONE"
		}
		out = append(out, h)
	}
	return out
}

type fakeEnroller struct{}

func (fakeEnroller) Enroll(_ context.Context, p podwatch.Pod) (uint64, error) {
	out, err := exec.Command("ip", "netns", "pids", filepath.Base(p.NetNS)).Output()
	fmt.Printf("enrol %s sa=%s ips=%d if=%s probes=%v processes=%d\n", p.Key(), p.ServiceAccount, len(p.IPs), p.HostInterface, p.ProbePorts, len(strings.Fields(string(out))))
	return 1, err
}

func (fakeEnroller) Remove(_ context.Context, uid string, gone bool) error {
	fmt.Printf("remove %s gone=%v\n", uid, gone)
	return nil
}

func (fakeEnroller) Settle() error { return nil }
