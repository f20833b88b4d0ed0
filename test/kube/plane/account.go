package plane

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairlead-mesh/fairlead/pkg/install/chart"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// Account is the control plane's service account.
const Account = "istiod"

// AsAccount writes what the chart allows to the control plane, and returns a kubeconfig
// of it: with those permissions and no others. The namespace istio-system must be there.
func AsAccount(t testing.TB, c *cluster.Cluster) string {
	t.Helper()
	objects, err := chart.Release{Profile: "default", Version: "test"}.Render()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, o := range objects {
		if slices.Contains([]string{"ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}, o.GetKind()) {
			b, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&text, "---\n%s\n", b)
		}
	}
	if out, err := c.KubectlInput(t.Context(), text.String(), "apply", "-f", "-"); err != nil {
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
	path := filepath.Join(t.TempDir(), "istiod.kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}
