package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func example(content string) Image {
	files := []File{{Path: "/usr/local/bin/app", Mode: 0o755, Content: []byte(content)}, Tmp}
	return Image{
		Name: "localhost/fairlead/app:v1", Entrypoint: []string{"/usr/local/bin/app"}, User: "1337:1337",
		Labels:   map[string]string{"b": "2", "a": "1", "c": "3"},
		Variants: []Variant{{Arch: "amd64", Files: files}, {Arch: "arm64", Files: files}},
	}
}

func written(t *testing.T, images ...Image) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, images...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestSameFilesGiveTheSameBytes(t *testing.T) {
	one := example("program")
	two := example("program")
	two.Variants[0].Files = []File{Tmp, two.Variants[0].Files[0]} // another order
	first := written(t, one)
	if !bytes.Equal(first, written(t, two)) {
		t.Error("the same files make two archives")
	}
	if bytes.Equal(first, written(t, example("another program"))) {
		t.Error("other files make the same archive")
	}
}

func TestLayerIsSortedAndHasNoTimes(t *testing.T) {
	var out bytes.Buffer
	if err := writeTar(&out, example("program").Variants[0].Files); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&out); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 {
			t.Errorf("%s has the time %s", h.Name, h.ModTime)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+h.Name)
	}
	want := "dtrwxrwxrwx tmp/|drwxr-xr-x usr/|drwxr-xr-x usr/local/|drwxr-xr-x usr/local/bin/|-rwxr-xr-x usr/local/bin/app"
	if strings.Join(got, "|") != want {
		t.Errorf("layer: %s\nwant   %s", strings.Join(got, "|"), want)
	}
}

func TestWrongImagesAreRefused(t *testing.T) {
	for name, change := range map[string]func(*Image){
		"want HOST/NAME:TAG":          func(i *Image) { i.Name = "localhost/fairlead/app" },
		"image name":                  func(i *Image) { i.Name = "Not A Name" },
		"has no platform":             func(i *Image) { i.Variants = nil },
		"not a clean absolute path":   func(i *Image) { i.Variants[0].Files[0].Path = "../etc/passwd" },
		"in the image twice":          func(i *Image) { i.Variants[0].Files[1] = i.Variants[0].Files[0] },
		"is a file and a directory":   func(i *Image) { i.Variants[0].Files[1] = File{Path: "/usr/local"} },
		"file /usr/local/bin/app of ": func(i *Image) { i.Variants[0].Files[0].Source = "/does/not/exist" },
	} {
		img := example("x")
		change(&img)
		if err := Write(io.Discard, img); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("want an error with %q, got %v", name, err)
		}
	}
}

func TestArchiveAppearsWhole(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app.tar")
	bad := example("x")
	bad.Variants = nil
	if err := WriteFile(file, bad); err == nil {
		t.Fatal("an image without a platform is written")
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) != 0 {
		t.Errorf("a failed write leaves %v", left)
	}
	if err := WriteFile(file, example("x")); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, written(t, example("x"))) {
		t.Errorf("the file is not the archive: %v", err)
	}
}
