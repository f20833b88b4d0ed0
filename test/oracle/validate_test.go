package oracle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/control/source"
)

// served are the kinds whose manifests must be judged as Istio's webhook and an
// API server together judge them.
var served = []string{"ServiceEntry", "WorkloadEntry", "AuthorizationPolicy", "PeerAuthentication", "DestinationRule"}

func TestValidation(t *testing.T) {
	if _, err := os.Stat(shared); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recordings beside the repository (../shared)")
	}
	manifests, err := filepath.Glob(filepath.Join(shared, "oracle", "validate", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, file := range manifests {
		text := read(t, file)
		kind := ""
		for _, k := range served {
			if strings.Contains(string(text), "kind: "+k+"\n") {
				kind = k
			}
		}
		if kind == "" {
			continue
		}
		judged++
		stem := strings.TrimSuffix(file, ".yaml")
		wanted := strings.HasPrefix(string(read(t, stem+".webhook.txt")), "allowed: true") &&
			strings.HasPrefix(string(read(t, stem+".apiserver.txt")), "accepted")
		var failures []string
		o := source.Parse([]source.File{{Name: filepath.Base(file), Data: text}}, nil)
		for _, p := range o.Problems {
			if p.Severity == source.Error {
				failures = append(failures, p.String())
			}
		}
		if wanted != (len(failures) == 0) {
			t.Errorf("%s: Istio takes it: %t; we say %q", filepath.Base(file), wanted, failures)
		}
		if security := strings.HasSuffix(kind, "Policy") || strings.HasSuffix(kind, "Authentication"); security && !wanted && len(o.Refused) != 1 {
			t.Errorf("%s: refused %v", filepath.Base(file), o.Refused)
		}
	}
	if judged < 10 {
		t.Fatalf("only %d manifests of %v were judged", judged, served)
	}
	t.Logf("%d manifests judged", judged)
}
