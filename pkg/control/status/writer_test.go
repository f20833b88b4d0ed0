package status

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func newWriter(t *testing.T, dir string) *Writer {
	t.Helper()
	w, err := NewWriter(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func policy(name, state string) Status {
	s := Status{Object: Object{"security.istio.io/v1", "AuthorizationPolicy", "default", name}}
	s.Set(Condition{Type: ZtunnelAccepted, Status: state, Reason: "Accepted", Message: "attached to ztunnel"})
	return s
}

func TestWriterKeepsTheDirectoryEqual(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "status")
	w := newWriter(t, dir)
	entry := Status{Object: Object{"networking.istio.io/v1", "ServiceEntry", "default", "ext"}, Addresses: []Address{{Host: "a.example.com", Value: "240.240.0.1"}}}
	file := Status{Object: Object{"fairlead.dev/v1", "File", "", "dir/a_b.yaml"}}
	if err := w.Write([]Status{policy("a", "True"), policy("b", "True"), entry, file}); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"authorizationpolicy_security.istio.io_default_a.yaml", "authorizationpolicy_security.istio.io_default_b.yaml",
		"file_fairlead.dev_dir%2Fa%5Fb.yaml.yaml", "serviceentry_networking.istio.io_default_ext.yaml",
	}
	if diff := cmp.Diff(want, listing(t, dir)); diff != "" {
		t.Error(diff)
	}
	text, _ := os.ReadFile(filepath.Join(dir, want[0]))
	for _, part := range []string{mark, "kind: AuthorizationPolicy", "name: a", "namespace: default", "type: ZtunnelAccepted", `status: "True"`} {
		if !strings.Contains(string(text), part) {
			t.Errorf("%q is not in\n%s", part, text)
		}
	}

	// A later process takes over: b is stale, a changed, the entry untouched.
	before, _ := os.Stat(filepath.Join(dir, want[3]))
	w = newWriter(t, dir)
	if err := w.Write([]Status{policy("a", "False"), entry}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{want[0], want[3]}, listing(t, dir)); diff != "" {
		t.Error(diff)
	}
	text, _ = os.ReadFile(filepath.Join(dir, want[0]))
	if !strings.Contains(string(text), `status: "False"`) {
		t.Errorf("not replaced:\n%s", text)
	}
	after, _ := os.Stat(filepath.Join(dir, want[3]))
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("an equal status was written again")
	}
}

func TestWriterLeavesForeignFiles(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "authorizationpolicy_security.istio.io_default_a.yaml")
	other := filepath.Join(dir, "mine.yaml")
	for _, f := range []string{foreign, other} {
		if err := os.WriteFile(f, []byte("kind: Mine\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	w := newWriter(t, dir)
	if err := w.Write([]Status{policy("a", "True"), policy("b", "True")}); err == nil || !strings.Contains(err.Error(), "not ours") {
		t.Errorf("err = %v, want that a file is not ours", err)
	}
	if err := w.Write(nil); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{foreign, other} {
		if text, err := os.ReadFile(f); err != nil || string(text) != "kind: Mine\n" {
			t.Errorf("%s: %q, %v", f, text, err)
		}
	}
	if got := listing(t, dir); len(got) != 2 {
		t.Errorf("left over: %v", got)
	}
}

func TestSetReplacesByType(t *testing.T) {
	var s Status
	s.Set(Condition{Type: "b", Status: "True"})
	s.Set(Condition{Type: "a", Status: "True"})
	s.Set(Condition{Type: "b", Status: "False"})
	if diff := cmp.Diff([]Condition{{Type: "a", Status: "True"}, {Type: "b", Status: "False"}}, s.Conditions); diff != "" {
		t.Error(diff)
	}
}

func TestJoin(t *testing.T) {
	a, b := Object{Kind: "A", Name: "a"}, Object{Kind: "B", Name: "b"}
	got := Join(
		[]Status{{Object: b, Conditions: []Condition{{Type: "X", Reason: "first"}}}},
		[]Status{{Object: b, Conditions: []Condition{{Type: "X", Reason: "second"}, {Type: "Y"}}}, {Object: a, Parents: []Parent{{Ref: ParentRef{Name: "p"}}}}},
	)
	want := []Status{
		{Object: a, Parents: []Parent{{Ref: ParentRef{Name: "p"}}}},
		{Object: b, Conditions: []Condition{{Type: "X", Reason: "second"}, {Type: "Y"}}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
