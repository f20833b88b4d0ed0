package sbom

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBinarySaysWhatItWasBuiltFrom(t *testing.T) {
	self, err := os.Executable() // a Go binary with modules
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "x.spdx.json")
	var texts [2][]byte
	for i := range texts {
		if err := Write(file, "control-plane-amd64", "v1.2.3", self); err != nil {
			t.Fatal(err)
		}
		if texts[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(texts[0], texts[1]) {
		t.Error("the same binary has two bills")
	}
	var doc document
	if err := json.Unmarshal(texts[0], &doc); err != nil {
		t.Fatal(err)
	}
	if doc.SPDXVersion != "SPDX-2.3" || !strings.Contains(doc.DocumentNamespace, "control-plane-amd64-") {
		t.Errorf("head: %+v", doc)
	}
	ids := map[string]bool{doc.SPDXID: true}
	for _, p := range doc.Packages {
		if ids[p.SPDXID] {
			t.Errorf("%s is there twice", p.SPDXID)
		}
		ids[p.SPDXID] = true
	}
	if app := doc.Packages[0]; app.VersionInfo != "v1.2.3" || len(app.Checksums) != 1 || len(app.Checksums[0].Value) != 64 {
		t.Errorf("the binary: %+v", app)
	}
	for _, r := range doc.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("a relationship leads nowhere: %+v", r)
		}
	}
	if !strings.Contains(string(texts[0]), `"pkg:golang/stdlib@`) {
		t.Error("the Go standard library is not listed")
	}
}

func TestWhatIsNoGoBinaryIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(file+".json", "x", "v1", file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("want an error that names %s, got %v", file, err)
	}
}
