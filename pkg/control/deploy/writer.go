package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Writer keeps a directory of objects, one file each, for who runs them.
type Writer struct {
	dir   string
	wrote map[string][]byte
}

// NewWriter makes the directory, if it is not there. What an earlier run left in it
// counts until the first Write.
func NewWriter(dir string) (*Writer, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("objects' directory: %w", err)
	}
	w := &Writer{dir: dir, wrote: map[string][]byte{}}
	left, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("objects' directory: %w", err)
		}
		w.wrote[filepath.Base(path)] = text
	}
	return w, nil
}

// Write makes the directory hold just these objects. What has not changed is not
// touched.
func (w *Writer) Write(objects []runtime.Object) error {
	var errs []error
	now := map[string]bool{}
	for _, o := range objects {
		a, err := meta.Accessor(o)
		if err != nil {
			return err
		}
		name := strings.ToLower(o.GetObjectKind().GroupVersionKind().Kind) + "_" + a.GetNamespace() + "_" + a.GetName() + ".yaml"
		now[name] = true
		text, err := yaml.Marshal(o)
		if err != nil {
			return err
		}
		if bytes.Equal(w.wrote[name], text) {
			continue
		}
		if err := w.put(name, text); err != nil {
			errs = append(errs, err)
			continue
		}
		w.wrote[name] = text
	}
	for name := range w.wrote {
		if now[name] {
			continue
		}
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		delete(w.wrote, name)
	}
	return errors.Join(errs...)
}

func (w *Writer) put(name string, text []byte) error {
	next := filepath.Join(w.dir, "."+name+".next")
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(w.dir, name))
}
