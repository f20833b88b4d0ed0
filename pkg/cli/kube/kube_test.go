package kube

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestTarget(t *testing.T) {
	for _, c := range []struct{ namespace, text, kind, name, in string }{
		{"shop", "web-5d", "", "web-5d", "shop"},
		{"", "web-5d.shop", "", "web-5d", "shop"},
		{"", "Deploy/web", "deploy", "web", "default"},
		{"", "deployment/web.shop", "deployment", "web", "shop"},
		{"", "web.v1.shop", "", "web.v1", "shop"},
		{"shop", "web.v1", "", "web.v1", "shop"},
	} {
		f := Flags{Namespace: c.namespace, Kubeconfig: "/does/not/exist"}
		if kind, name, in := f.Target(c.text); kind != c.kind || name != c.name || in != c.in {
			t.Errorf("-n %q %q: %q %q %q", c.namespace, c.text, kind, name, in)
		}
	}
}

func TestFlagsAreIstioctls(t *testing.T) {
	var f Flags
	flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
	f.Bind(flags)
	if err := flags.Parse([]string{"-c", "/k", "-n", "shop", "-i", "mesh", "--context", "c", "--as", "u", "--as-group", "g"}); err != nil {
		t.Fatal(err)
	}
	if f.Kubeconfig != "/k" || f.Namespace != "shop" || f.IstioNamespace != "mesh" || f.Context != "c" || f.Impersonate != "u" || f.ImpersonateGroups[0] != "g" {
		t.Errorf("%+v", f)
	}
}

func TestNoClusterIsSaid(t *testing.T) {
	t.Setenv("KUBECONFIG", "/does/not/exist")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := (&Flags{}).Connect(); err == nil || !strings.Contains(err.Error(), "--kubeconfig") {
		t.Errorf("got %v", err)
	}
}
