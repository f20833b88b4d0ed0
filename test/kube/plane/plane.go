// Package plane runs the product's control plane on a cluster of package cluster, and
// has what tests of it need: agents as nodes have them, tokens from the API server,
// objects that are written there.
//
// For tests and benchmarks under test.
package plane

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"google.golang.org/grpc"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Plane is a control plane that serves a cluster.
type Plane struct {
	Cluster *cluster.Cluster
	Kube    kubernetes.Interface
	// Address is of xDS and the CA, Admin of metrics and readiness.
	Address, Admin string
	// Roots is a file with the mesh's root certificates.
	Roots string

	t      testing.TB
	dir    string
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
	log    *log
}

// log keeps what a process says.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "fairlead-plane-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "control-plane")
	out, err := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", path, "github.com/fairlead-mesh/fairlead/cmd/control-plane").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// Start runs a control plane until the test ends, with the rights that the chart gives it
// and no others. More flags may be given.
func Start(t testing.TB, c *cluster.Cluster, args ...string) *Plane {
	t.Helper()
	p := &Plane{t: t, Cluster: c, dir: t.TempDir(), Address: freePort(t), Admin: freePort(t)}
	p.Roots = filepath.Join(p.dir, "roots.pem")
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	if p.Kube, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	p.args = append([]string{
		"--kubeconfig", AsAccount(t, c), "--root-cert-out", p.Roots,
		"--listen", p.Address, "--admin-address", p.Admin, "--dns-names", "istiod.istio-system.svc",
	}, args...)
	t.Cleanup(p.Stop)
	p.Run()
	return p
}

// Run starts the process, and again after [Plane.Stop].
func (p *Plane) Run() {
	p.t.Helper()
	binary, err := build()
	if err != nil {
		p.t.Fatal(err)
	}
	p.log = &log{}
	p.cmd = exec.Command(binary, p.args...)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd, exited := p.cmd, make(chan struct{})
	p.exited = exited
	go func() { defer close(exited); _ = cmd.Wait() }()
}

// PID is the process's.
func (p *Plane) PID() int { return p.cmd.Process.Pid }

// Stop ends the process.
func (p *Plane) Stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
	if p.t.Failed() {
		p.t.Logf("the control plane said:\n%s", p.log)
	}
	p.cmd = nil
}

// Log is what the process has said.
func (p *Plane) Log() string { return p.log.String() }

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Until waits for a condition, for a minute at most: machines are busy.
func (p *Plane) Until(what string, condition func() bool) {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for !condition() {
		select {
		case <-p.exited:
			p.t.Fatalf("%s: the control plane has ended:\n%s", what, p.log)
		case <-deadline:
			p.t.Fatalf("waited in vain: %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Get is a page of the admin address, after its status.
func (p *Plane) Get(path string) string {
	response, err := http.Get("http://" + p.Admin + path)
	if err != nil {
		return err.Error()
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return fmt.Sprint(response.StatusCode, " ", string(b))
}

// Apply writes objects in YAML as kubectl does.
func (p *Plane) Apply(text string) {
	p.t.Helper()
	if out, err := p.Cluster.KubectlInput(p.t.Context(), text, "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		p.t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// Kubectl runs kubectl.
func (p *Plane) Kubectl(args ...string) string {
	p.t.Helper()
	out, err := p.Cluster.Kubectl(p.t.Context(), args...)
	if err != nil {
		p.t.Fatalf("kubectl %v: %v\n%s", args, err, out)
	}
	return out
}

// Pod makes a pod that runs on a node, ready, with an address. Its namespace and node
// must exist; its service account is made.
func (p *Plane) Pod(namespace, name, account, node, ip string, labels, annotations map[string]string) *corev1.Pod {
	p.t.Helper()
	ctx := p.t.Context()
	if _, err := p.Kube.CoreV1().ServiceAccounts(namespace).Get(ctx, account, metav1.GetOptions{}); err != nil {
		if _, err := p.Kube.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
			p.t.Fatal(err)
		}
	}
	pod, err := p.Kube.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels, Annotations: annotations},
		Spec:       corev1.PodSpec{NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "app", Image: "echo"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return p.Ready(pod, ip, true)
}

// Ready writes a pod's status.
func (p *Plane) Ready(pod *corev1.Pod, ip string, ready bool) *corev1.Pod {
	p.t.Helper()
	condition := corev1.ConditionFalse
	if ready {
		condition = corev1.ConditionTrue
	}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: condition}},
	}
	pod, err := p.Kube.CoreV1().Pods(pod.Namespace).UpdateStatus(p.t.Context(), pod, metav1.UpdateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	return pod
}

// Node makes a node.
func (p *Plane) Node(name string, labels map[string]string) {
	p.t.Helper()
	if _, err := p.Kube.CoreV1().Nodes().Create(p.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
		p.t.Fatal(err)
	}
}

// Token is a file with a token of a pod, for the mesh.
func (p *Plane) Token(pod *corev1.Pod) string {
	p.t.Helper()
	expires := int64(3600)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: []string{"istio-ca"}, ExpirationSeconds: &expires,
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	made, err := p.Kube.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(p.t.Context(), pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
	path := filepath.Join(p.t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(made.Status.Token), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// Dial connects as a pod.
func (p *Plane) Dial(tokenFile string) *grpc.ClientConn {
	p.t.Helper()
	p.Until("root certificates", func() bool { _, err := os.Stat(p.Roots); return err == nil })
	conn, err := identity.Dial(p.Address, "istiod.istio-system.svc", p.Roots, identity.Token{File: tokenFile, Cluster: "Kubernetes"})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return conn
}

// Agent is what a node agent's pod knows: the client side of a node.
func (p *Plane) Agent(pod *corev1.Pod) (*store.Store, *xds.Client) {
	p.t.Helper()
	s, err := store.New(slog.New(slog.DiscardHandler))
	if err != nil {
		p.t.Fatal(err)
	}
	client, err := xds.NewClient(xds.Options{
		Conn: p.Dial(p.Token(pod)), Applier: s, NodeID: "ztunnel~" + pod.Status.PodIP + "~" + pod.Name + "." + pod.Namespace + "~" + pod.Namespace + ".svc.cluster.local",
		Metadata: map[string]any{"NODE_NAME": pod.Spec.NodeName}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- client.Run(ctx) }()
	p.t.Cleanup(func() { cancel(); <-done })
	return s, client
}
