package plane

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Account is the control plane's service account.
const Account = "istiod"

// AsAccount writes what the chart allows to the control plane, and returns a kubeconfig
// of it: with those permissions and no others. A question that goes beyond them fails the
// test; the others are remembered as [used].
func AsAccount(t testing.TB, c *cluster.Cluster) string {
	t.Helper()
	objects, err := chart.Release{Profile: chart.DefaultProfile, Version: "test"}.Render()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n", chart.Namespace)
	for _, o := range objects {
		if slices.Contains([]string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, o.GetKind()) {
			b, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, "---\n%s\n", b)
		}
	}
	if out, err := c.KubectlInput(t.Context(), text.String(), "apply", "--server-side", "--force-conflicts", "-f", "-"); err != nil {
		t.Fatal(err, out)
	}
	admin, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	kube, err := kubernetes.NewForConfig(admin)
	if err != nil {
		t.Fatal(err)
	}
	expires := int64(3600)
	made, err := kube.CoreV1().ServiceAccounts(chart.Namespace).CreateToken(t.Context(), Account, &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &expires}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for name := range config.AuthInfos {
		config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: made.Status.Token}
	}
	if test, ok := t.(*testing.T); ok { // measurements have nothing in between
		for name := range config.Clusters {
			config.Clusters[name] = watched(test, admin)
		}
	}
	path := filepath.Join(t.TempDir(), "istiod.kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// watched is what stands before the API server until the test ends, and looks at what is
// asked for.
func watched(t *testing.T, config *rest.Config) *clientcmdapi.Cluster {
	t.Helper()
	to, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(config))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, Transport: transport, FlushInterval: -1,
		ModifyResponse: func(r *http.Response) error {
			asked := question(r.Request)
			if r.StatusCode == http.StatusForbidden {
				t.Errorf("the control plane may not %s", asked)
			}
			used.add(asked)
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	server := httptest.NewUnstartedServer(proxy)
	server.EnableHTTP2 = true
	server.StartTLS() // a client sends no token without
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	return &clientcmdapi.Cluster{Server: server.URL, CertificateAuthorityData: roots}
}
