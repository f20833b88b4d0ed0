package cni

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A node's CNI configuration is fit when there is one that no other mesh is chained to.
func TestPrecheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  string // what the sentence holds, or "" for none
	}{
		{"fit", map[string]string{"10-net.conflist": bridge}, ""},
		{"none", nil, "There is no CNI configuration in "},
		{"only what nobody can read", map[string]string{"10-net.conflist": "{"}, "There is no CNI configuration in "},
		{"Istio's", map[string]string{"10-net.conflist": `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge"},{"type":"istio-cni"}]}`}, "chains istio-cni, which captures pods as well: take the entry out, or uninstall Istio's CNI agent"},
		{"Linkerd's in a file that is not read", map[string]string{"10-net.conflist": bridge, "20-net.conflist": `{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"linkerd-cni"}]}`}, ""},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := strings.Join(Precheck(dir), "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := Precheck("/nowhere"); len(got) != 1 || !strings.Contains(got[0], "nodeAgent.cni.confDir") {
		t.Errorf("a directory that is not there: %v", got)
	}
}
