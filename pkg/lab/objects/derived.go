package objects

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// Derived writes the objects that the lab makes: one file per object, replaced
// in one step, only when something changed. Not safe for concurrent use.
type Derived struct {
	dir   string
	wrote map[string][]byte
}

// NewDerived empties dir and makes it ready.
func NewDerived(dir string) (*Derived, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty %s: %w", dir, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make %s: %w", dir, err)
	}
	return &Derived{dir: dir, wrote: map[string][]byte{}}, nil
}

// Put writes an object of a kind; its TypeMeta must be set.
func (d *Derived) Put(kind string, key Key, obj runtime.Object) error {
	text, err := yaml.Marshal(obj)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", kind, key, err)
	}
	name := fileName(kind, key)
	if bytes.Equal(d.wrote[name], text) {
		return nil
	}
	path := filepath.Join(d.dir, name)
	next := filepath.Join(d.dir, "."+name+".next")
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return fmt.Errorf("write %s %s: %w", kind, key, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s %s: %w", kind, key, err)
	}
	d.wrote[name] = text
	return nil
}

// Delete removes an object; one that is not there is no error.
func (d *Derived) Delete(kind string, key Key) error {
	name := fileName(kind, key)
	delete(d.wrote, name)
	if err := os.Remove(filepath.Join(d.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s %s: %w", kind, key, err)
	}
	return nil
}

// fileName is flat, so that one watch sees all. Neither part can hold a '_'.
func fileName(kind string, key Key) string {
	parts := []string{strings.ToLower(kind), key.Namespace, key.Name}
	if key.Namespace == "" {
		parts = []string{strings.ToLower(kind), key.Name}
	}
	return strings.Join(parts, "_") + ".yaml"
}
