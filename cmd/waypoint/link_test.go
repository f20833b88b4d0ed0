package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// The code that protoc-gen-validate generates is not linked: a call of one Validate
// brings that of every message, and four megabytes of an idle waypoint.
func TestNoGeneratedRules(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "waypoint")
	if out, err := exec.Command("go", "build", "-tags", "grpcnotrace", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	if found := regexp.MustCompile(`\S+/envoy/\S+\.(Validate|ValidateAll|validate)\b`).FindAll(names, 3); len(found) > 0 {
		t.Errorf("linked: %s, and others; pkg/waypoint/rules says the same", found)
	}
}
