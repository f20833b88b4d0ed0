package auth

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/test/kube/plane"
)

const serverName = "istiod.istio-system.svc"

// world is a mesh of two nodes with an agent each, as the API server has it.
const world = `
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}
`

// tokenFile is a token as it is wanted, in a file.
func tokenFile(t *testing.T, p *plane.Plane, namespace, account, audience string, pod *corev1.Pod) string {
	t.Helper()
	expires := int64(3600)
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &expires}}
	if pod != nil {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	made, err := p.Kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, r, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, made.Status.Token)
}

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// dialFrom connects from a source address.
func dialFrom(t *testing.T, p *plane.Plane, source, tokenFile string) *grpc.ClientConn {
	t.Helper()
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	conn, err := grpc.NewClient("passthrough:///"+p.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ControlPlaneTLS(p.Roots, serverName))),
		grpc.WithPerRPCCredentials(identity.Token{File: tokenFile, Cluster: "Kubernetes"}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// refused checks an error, and that the control plane's log says it too.
func refused(t *testing.T, p *plane.Plane, what string, err error, code codes.Code, why string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), why) {
		t.Errorf("%s: %v; want %s: %s", what, err, code, why)
		return
	}
	p.Until("the log says why "+what+" was refused", func() bool { return strings.Contains(p.Log(), why) })
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
