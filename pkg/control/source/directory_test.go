package source

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const policyText = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: DENY, selector: {matchLabels: {app: a}}, rules: [{from: [{source: {namespaces: [evil]}}]}]}
`

func serviceText(name, ip string) string {
	return "apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\nspec: {clusterIP: " + ip + ", ports: [{port: 80}]}\n"
}

// follow runs a Directory over a fresh directory until the test ends.
type follow struct {
	t   *testing.T
	dir string
	d   *Directory
}

func newFollow(t *testing.T, files map[string]string) *follow {
	t.Helper()
	f := &follow{t: t, dir: t.TempDir()}
	for name, text := range files {
		f.write(name, text)
	}
	var err error
	f.d, err = NewDirectory(Options{ConfigDir: f.dir, DerivedDir: filepath.Join(f.dir, ".derived"), Settle: 10 * time.Millisecond, Rescan: 100 * time.Millisecond, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return f
}

func (f *follow) write(name, text string) {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

// until waits for a snapshot that satisfies ok.
func (f *follow) until(what string, ok func(*Objects) bool) *Objects {
	f.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		changed := f.d.Changed()
		o := f.d.Objects()
		if ok(o) {
			return o
		}
		select {
		case <-changed:
		case <-deadline:
			f.t.Fatalf("never %s: %d services, %d policies, problems %q, refused %v", what, len(o.Services), len(o.AuthorizationPolicies), lines(o), o.Refused)
		}
	}
}

func services(n int) func(*Objects) bool {
	return func(o *Objects) bool { return len(o.Services) == n }
}

func TestDirectoryFollows(t *testing.T) {
	f := newFollow(t, map[string]string{"a.yaml": serviceText("a", "10.0.0.1"), ".hidden/x.yaml": serviceText("x", "10.0.0.9"), ".y.yaml": serviceText("y", "10.0.0.8"), "notes.txt": "no"})
	first := f.until("the first", services(1))
	f.write("deep/er/b.yml", serviceText("b", "10.0.0.2"))
	f.until("a new directory's file", services(2))
	f.write("deep/er/c.json", `{"apiVersion":"v1","kind":"Service","metadata":{"name":"c"},"spec":{"ports":[{"port":80}]}}`)
	o := f.until("a JSON file", services(3))
	if o.Generation <= first.Generation || len(first.Services) != 1 {
		t.Errorf("generation %d after %d; the first snapshot now has %d services", o.Generation, first.Generation, len(first.Services))
	}
	// As editors save: a new file renamed over the old.
	f.write(".a.yaml.tmp", serviceText("a", "10.0.0.7"))
	if err := os.Rename(filepath.Join(f.dir, ".a.yaml.tmp"), filepath.Join(f.dir, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	f.until("the saved file", func(o *Objects) bool { return len(o.Services) == 3 && o.Services[0].Spec.ClusterIP == "10.0.0.7" })
	if err := os.RemoveAll(filepath.Join(f.dir, "deep")); err != nil {
		t.Fatal(err)
	}
	f.until("the removal", services(1))
	// A derived object takes the place of the user's.
	f.write(".derived/a.yaml", serviceText("a", "10.0.0.99"))
	o = f.until("the derived object", func(o *Objects) bool { return o.Services[0].Spec.ClusterIP == "10.0.0.99" })
	if len(o.Problems) > 0 {
		t.Error(lines(o))
	}
}

func TestRenamedFileIsNoDuplicate(t *testing.T) {
	f := newFollow(t, map[string]string{"a.yaml": serviceText("a", "10.0.0.1")})
	f.until("the first", services(1))
	if err := os.Rename(filepath.Join(f.dir, "a.yaml"), filepath.Join(f.dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	f.write("z.yaml", serviceText("a", "10.0.0.2"))
	f.until("the new name", func(o *Objects) bool {
		if len(o.Services) != 1 || len(o.Problems) > 0 {
			t.Errorf("%d services, %q", len(o.Services), lines(o))
		}
		return len(o.Services) == 1 && o.Services[0].Spec.ClusterIP == "10.0.0.2"
	})
}

func TestLastGoodStatePerFile(t *testing.T) {
	f := newFollow(t, map[string]string{"p.yaml": policyText, "s.yaml": serviceText("a", "10.0.0.1")})
	f.until("the first", services(1))
	f.write("p.yaml", strings.Replace(policyText, "rules", "ruels", 1))
	f.write("s.yaml", serviceText("a", "10.0.0.2"))
	o := f.until("the broken file", func(o *Objects) bool { return len(o.Problems) == 1 && o.Services[0].Spec.ClusterIP == "10.0.0.2" })
	if len(o.AuthorizationPolicies) != 1 || len(o.Refused) != 0 {
		t.Errorf("%d policies, refused %v", len(o.AuthorizationPolicies), o.Refused)
	}
	if m := o.Problems[0].String(); !strings.Contains(m, `p.yaml:4`) || !strings.Contains(m, `did you mean "rules"?`) || !strings.Contains(m, "stays in force") {
		t.Error(m)
	}
	f.write("p.yaml", policyText)
	f.until("mended", func(o *Objects) bool { return len(o.Problems) == 0 && len(o.AuthorizationPolicies) == 1 })

	// Unreadable is not empty. (Root reads anything but a directory's name.)
	if os.Geteuid() != 0 {
		if err := os.Chmod(filepath.Join(f.dir, "p.yaml"), 0); err != nil {
			t.Fatal(err)
		}
		f.write("s.yaml", serviceText("a", "10.0.0.3"))
		o = f.until("the unreadable file", func(o *Objects) bool { return len(o.Problems) == 1 })
		if len(o.AuthorizationPolicies) != 1 {
			t.Error("an unreadable file lost its objects")
		}
	}
}

func TestBrokenAtStartIsRefusedUntilMended(t *testing.T) {
	f := newFollow(t, map[string]string{"p.yaml": strings.Replace(policyText, "rules", "ruels", 1) + "---\n" + serviceText("a", "10.0.0.1")})
	o := f.until("the first", services(1)) // what is right in the file counts
	if len(o.Refused) != 1 || o.Refused[0].Selector["app"] != "a" {
		t.Fatalf("refused %v", o.Refused)
	}
	f.write("p.yaml", policyText)
	f.until("mended", func(o *Objects) bool { return len(o.Refused) == 0 && len(o.AuthorizationPolicies) == 1 })
}

func TestDuplicateKeepsTheFirstComer(t *testing.T) {
	f := newFollow(t, map[string]string{"z.yaml": serviceText("a", "10.0.0.1")})
	f.until("the first", services(1))
	f.write("a.yaml", serviceText("a", "10.0.0.2")) // earlier by name, later in time
	o := f.until("the duplicate", func(o *Objects) bool { return len(o.Problems) == 1 })
	if o.Services[0].Spec.ClusterIP != "10.0.0.1" {
		t.Error("the copy took the place of the object")
	}
	if m := o.Problems[0].String(); !strings.HasPrefix(m, "a.yaml:1: error: Service default/a: ") || !strings.Contains(m, "z.yaml:1") {
		t.Error(m)
	}
	if err := os.Remove(filepath.Join(f.dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	f.until("the copy", func(o *Objects) bool { return len(o.Problems) == 0 && o.Services[0].Spec.ClusterIP == "10.0.0.2" })
}

// A file that is truncated and then written, as some editors do, must not make
// its objects go away in between.
func TestTruncatedFileWaits(t *testing.T) {
	var tr tree
	dir := t.TempDir()
	tr.roots = []root{{dir: dir}}
	path := filepath.Join(dir, "a.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	scan := func(grace time.Duration) scanResult {
		t.Helper()
		r, err := tr.scan(grace)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	put(serviceText("a", "10.0.0.1"))
	if r := scan(0); !r.changed {
		t.Error("the first reading changed nothing")
	}
	put("")
	if r := scan(time.Hour); r.changed || !r.pending || len(tr.ledger.objects().Services) != 1 {
		t.Errorf("a truncated file lost its object: %+v", r)
	}
	put(serviceText("a", "10.0.0.2"))
	if r := scan(time.Hour); !r.changed || tr.ledger.objects().Services[0].Spec.ClusterIP != "10.0.0.2" {
		t.Errorf("the written file was not taken: %+v", r)
	}
	put("")
	if r := scan(0); !r.changed || len(tr.ledger.objects().Services) != 0 {
		t.Errorf("a file that stays empty keeps its object: %+v", r)
	}
}

func TestOptions(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, o := range []Options{{Logger: log}, {ConfigDir: t.TempDir()}, {ConfigDir: "/nonexistent/x", Logger: log}, {ConfigDir: t.TempDir(), Logger: log, Settle: -1}} {
		if _, err := NewDirectory(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
