package cluster

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func TestTokensOfTheAPIServer(t *testing.T) {
	c := ForTest(t, Options{Name: "tokens"})
	config, err := c.Config()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.CoreV1().ServiceAccounts("default").CreateToken(t.Context(), "default", &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{Audiences: []string{"istio-ca"}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for audience, want := range map[string]bool{"istio-ca": true, "other": false} {
		review, err := client.AuthenticationV1().TokenReviews().Create(t.Context(), &authentication.TokenReview{
			Spec: authentication.TokenReviewSpec{Token: token.Status.Token, Audiences: []string{audience}},
		}, meta.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := review.Status.Authenticated; got != want {
			t.Errorf("audience %s: authenticated %v, want %v (%s)", audience, got, want, review.Status.Error)
		}
	}
}

// keeper is the environment variable that makes this test binary the keeper of a
// cluster, to be killed by the test that started it.
const keeper = "FAIRLEAD_KEEPER"

func TestKilledKeeperTakesTheClusterAlong(t *testing.T) {
	o := Options{Name: "killed"}
	if os.Getenv(keeper) != "" {
		ForTest(t, o)
		_ = os.WriteFile(os.Getenv(keeper), nil, 0o600)
		select {}
	}
	Asked(t, o)
	up := filepath.Join(t.TempDir(), "up")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), keeper+"="+up)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the keeper's cluster is up", func() bool { _, err := os.Stat(up); return err == nil })
	pid, err := os.ReadFile(filepath.Join(root(), "killed", "control-plane.pid"))
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	number, _, _ := strings.Cut(string(pid), " ")
	eventually(t, "the API server ends with its keeper", func() bool { _, err := os.Stat("/proc/" + number); return err != nil })
	if err := Down("killed"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root(), "killed")); err == nil {
		t.Error("Down left the cluster's directory")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}
