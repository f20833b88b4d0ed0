package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func load(t *testing.T, d *Dir) Result {
	t.Helper()
	res, err := d.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func namespace(name string) string {
	return "apiVersion: v1\nkind: Namespace\nmetadata: {name: " + name + "}\n"
}

func has(s *Set, names ...string) bool {
	if len(s.Namespaces) != len(names) {
		return false
	}
	for _, n := range names {
		if s.Namespaces[Key{Name: n}] == nil {
			return false
		}
	}
	return true
}

func TestOfManyDocumentsAndDirectories(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "# only a comment\n---\n"+namespace("one")+"--- # again\n"+namespace("two")+"---\n")
	write(t, dir, "sub/deep/b.yml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: three}}\n")
	write(t, dir, ".fairlead/objects/c.yaml", namespace("hidden"))
	write(t, dir, ".swp.yaml", namespace("hidden"))
	write(t, dir, "notes.txt", "no YAML: [")
	write(t, dir, "istio.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {anything: goes}\n")
	write(t, dir, "jobs.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: x}\n")
	res := load(t, NewDir(dir, nil))
	if !has(res.Set, "one", "two", "three") || len(res.Problems) > 0 {
		t.Errorf("namespaces %v, problems %v", res.Set.Namespaces, res.Problems)
	}
	if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "jobs.yaml:1") {
		t.Errorf("warnings: %q", res.Warnings)
	}
}

func TestWhatIsWrongNamesFileAndLine(t *testing.T) {
	refuse := func(o metav1.Object) error {
		if o.GetName() == "refused" {
			return errors.New("not this one")
		}
		return nil
	}
	for _, tc := range []struct{ text, want string }{
		{namespace("x") + "---\nkind: [", "f.yaml:5: "},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: a_b}", `Pod "a_b"`},
		{"apiVersion: v1\nkind: Pod\nmetadata: {}", "no metadata.name"},
		{"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: 3", "Pod: "},
		{namespace("refused"), "Namespace refused: not this one"},
	} {
		dir := t.TempDir()
		write(t, dir, "f.yaml", tc.text)
		res := load(t, NewDir(dir, refuse))
		if len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.text, res.Problems, tc.want)
		}
	}
}

func TestTheLastGoodStateOfAFileStays(t *testing.T) {
	dir := t.TempDir()
	d := NewDir(dir, nil)
	write(t, dir, "a.yaml", namespace("a"))
	write(t, dir, "b.yaml", namespace("b"))
	load(t, d)
	write(t, dir, "a.yaml", "kind: [")
	write(t, dir, "b.yaml", namespace("b2"))
	res := load(t, d)
	if !has(res.Set, "a", "b2") || len(res.Problems) != 1 || !strings.Contains(res.Problems[0].Error(), "last good state stays") {
		t.Errorf("%v, %v", res.Set.Namespaces, res.Problems)
	}
	if res = load(t, d); len(res.Problems) != 0 {
		t.Errorf("the same problem is reported twice: %v", res.Problems)
	}
	write(t, dir, "a.yaml", namespace("a"))
	if res = load(t, d); !has(res.Set, "a", "b2") || len(res.Problems) != 0 {
		t.Errorf("mended: %v, %v", res.Set.Namespaces, res.Problems)
	}
}

func TestAMomentWithoutTheFileIsNoDeletion(t *testing.T) {
	dir := t.TempDir()
	d := NewDir(dir, nil)
	write(t, dir, "a.yaml", namespace("a"))
	load(t, d)
	// Editors move the file away, or empty it, before they write.
	for _, moment := range []func() error{
		func() error { return os.Remove(filepath.Join(dir, "a.yaml")) },
		func() error { return os.WriteFile(filepath.Join(dir, "a.yaml"), nil, 0o644) },
	} {
		if err := moment(); err != nil {
			t.Fatal(err)
		}
		if res := load(t, d); !has(res.Set, "a") || res.Again == 0 {
			t.Errorf("at once: %v, again in %v", res.Set.Namespaces, res.Again)
		}
		write(t, dir, "a.yaml", namespace("a")+"# saved\n")
		if res := load(t, d); !has(res.Set, "a") || res.Again != 0 {
			t.Errorf("saved: %v, again in %v", res.Set.Namespaces, res.Again)
		}
	}
	// A rename moves the objects and is no duplicate.
	if err := os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	if res := load(t, d); !has(res.Set, "a") || len(res.Warnings) > 0 {
		t.Errorf("renamed: %v, %v", res.Set.Namespaces, res.Warnings)
	}
	// What stays away is gone.
	if err := os.Remove(filepath.Join(dir, "z.yaml")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		if res := load(t, d); has(res.Set) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a deleted file counts for ever")
		}
	}
}

func TestOfTwoDefinitionsTheFirstCounts(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {from: a}}\n")
	write(t, dir, "b.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {from: b}}\n")
	res := load(t, NewDir(dir, nil))
	if res.Set.Namespaces[Key{Name: "x"}].Labels["from"] != "a" || len(res.Warnings) != 1 {
		t.Errorf("%v, %v", res.Set.Namespaces, res.Warnings)
	}
}

func TestDerivedObjectsAreReplacedInOneStep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "objects")
	write(t, dir, "old.yaml", "left by a killed lab")
	d, err := NewDerived(dir)
	if err != nil {
		t.Fatal(err)
	}
	key := Key{"ns", "a-b"}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if err := d.Put("Node", key, node); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "node_ns_a-b.yaml" {
		t.Fatalf("%v, %v", entries, err)
	}
	before, _ := entries[0].Info()
	if err := d.Put("Node", key, node); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(dir, "node_ns_a-b.yaml")); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same object was written again (%v)", err)
	}
	for range 2 { // deleting the absent is fine
		if err := d.Delete("Node", key); err != nil {
			t.Error(err)
		}
	}
}

func TestWatchSeesFilesOfNewDirectoriesAndNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	changed := make(chan []string, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Watch(ctx, dir, func(paths []string) { changed <- paths }) }()
	saw := func(what string, names ...string) {
		t.Helper()
		var want []string // or nil: it may be anything
		for _, name := range names {
			want = append(want, filepath.Join(dir, name))
		}
		for {
			select {
			case paths := <-changed:
				slices.Sort(paths)
				if paths = slices.Compact(paths); (paths == nil) == (want == nil) && slices.Equal(paths, want) {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s was not seen", what)
			}
		}
	}
	saw("the beginning")
	write(t, dir, "a.yaml", "x")
	saw("a new file", "a.yaml")
	write(t, dir, "sub/b.yaml", "x")
	saw("a new directory")
	write(t, dir, ".fairlead/c.yaml", "x")
	write(t, dir, "sub/b.yaml", "y")
	saw("a file in it", "sub/b.yaml")
	if err := os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "c.yaml")); err != nil {
		t.Fatal(err)
	}
	saw("a renamed file", "a.yaml", "c.yaml")
	if err := os.RemoveAll(filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	saw("a directory that goes")
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// What is read of the files that changed is what is read of all.
func TestReadingTheNamedIsReadingAll(t *testing.T) {
	dir := t.TempDir()
	d := NewDir(dir, nil)
	r := rand.New(rand.NewPCG(1, 1))
	if _, err := d.Load(nil); err != nil {
		t.Fatal(err)
	}
	for step := range 200 {
		var paths []string
		for range 1 + r.IntN(2) {
			name := fmt.Sprintf("%c.yaml", 'a'+r.IntN(4))
			paths = append(paths, filepath.Join(dir, name))
			switch r.IntN(4) {
			case 0:
				if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			case 1:
				write(t, dir, name, "kind: HTTPRoute\n")
			default:
				write(t, dir, name, fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: n%d, labels: {from: %s}}\n", r.IntN(3), name[:1]))
			}
		}
		res, err := d.Load(paths)
		if err != nil {
			t.Fatal(err)
		}
		for path, f := range d.files { // their grace is over
			if !f.missing.IsZero() {
				d.files[path].missing = f.missing.Add(-time.Hour)
			}
		}
		if res, err = d.Load([]string{}); err != nil || res.Again != 0 {
			t.Fatalf("step %d: %v, again in %v", step, err, res.Again)
		}
		if want := load(t, NewDir(dir, nil)); !reflect.DeepEqual(res.Set, want.Set) {
			t.Fatalf("step %d: %v, want %v", step, res.Set.Namespaces, want.Set.Namespaces)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(namespace("a") + "---\nkind: List\nitems: [{}]\n"))
	f.Add([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{}]}}}"))
	f.Add([]byte("--- \n---\n: : :\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := decode("f.yaml", text, nil)
		if err != nil && len(got.objects) > 0 {
			t.Error("objects beside an error")
		}
		for _, o := range got.objects {
			if o.key.Name == "" {
				t.Error("an object without a name")
			}
		}
	})
}
