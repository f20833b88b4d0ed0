package files

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"b.yaml": "b", "a/a.yml": "a", "a/c.json": "c", "note.txt": "no", ".git/x.yaml": "no", ".hidden.yaml": "no"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	read, err := Read(strings.NewReader("piped"), []string{"-", dir, filepath.Join(dir, "note.txt")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range read {
		got = append(got, strings.TrimPrefix(f.Name, dir+"/")+"="+string(f.Data))
	}
	if want := "-=piped a/a.yml=a a/c.json=c b.yaml=b note.txt=no"; strings.Join(got, " ") != want {
		t.Errorf("%v, want %s", got, want)
	}
	if _, err := Read(nil, []string{filepath.Join(dir, "missing.yaml")}); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("%v", err)
	}
}
