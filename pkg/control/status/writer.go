package status

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

// mark is the first line of every file that a Writer wrote. Files without it are
// someone else's and are never touched.
const mark = "# Written by Fairlead's control plane; edits are lost.\n"

// Writer keeps a directory equal to the statuses it is given. Not safe for
// concurrent use.
type Writer struct {
	dir    string
	logger *slog.Logger
	wrote  map[string][]byte // by file name
	// held are the statuses whose files are right.
	held map[Object]Status
}

// NewWriter writes under dir, which it makes if needed. Files that an earlier
// Writer left there are taken over.
func NewWriter(dir string, logger *slog.Logger) (*Writer, error) {
	if dir == "" || logger == nil {
		return nil, errors.New("status: a writer needs a directory and a logger")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("status: make %s: %w", dir, err)
	}
	w := &Writer{dir: dir, logger: logger, wrote: map[string][]byte{}, held: map[Object]Status{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("status: read %s: %w", dir, err)
	}
	for _, f := range files {
		if filepath.Ext(f.Name()) != ".yaml" || !f.Type().IsRegular() {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err == nil && bytes.HasPrefix(text, []byte(mark)) {
			w.wrote[f.Name()] = text
		}
	}
	return w, nil
}

// Write makes the directory hold exactly all: new and changed statuses are
// replaced in one step each, stale ones removed, equal ones left alone. One file
// that cannot be written does not keep the others from being.
func (w *Writer) Write(all []Status) error {
	var failures []error
	stale := make(map[string]bool, len(w.wrote))
	for name := range w.wrote {
		stale[name] = true
	}
	held := make(map[Object]Status, len(all))
	for _, s := range all {
		name := fileName(s.Object)
		delete(stale, name)
		if before, known := w.held[s.Object]; known && before.Equal(s) {
			held[s.Object] = before
			continue
		}
		text, err := encode(s)
		if err == nil && !bytes.Equal(w.wrote[name], text) {
			err = w.replace(name, text)
		}
		if err == nil {
			held[s.Object] = s
		} else {
			failures = append(failures, fmt.Errorf("status of %s %s/%s: %w", s.Object.Kind, s.Object.Namespace, s.Object.Name, err))
		}
	}
	w.held = held
	for name := range stale {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failures = append(failures, fmt.Errorf("remove stale status: %w", err))
			continue
		}
		delete(w.wrote, name)
	}
	return errors.Join(failures...)
}

func (w *Writer) replace(name string, text []byte) error {
	path := filepath.Join(w.dir, name)
	if _, ours := w.wrote[name]; !ours {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is there and is not ours: it is left as it is", path)
		}
	}
	next := filepath.Join(w.dir, "."+name+".next")
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	w.wrote[name] = text
	w.logger.Debug("status written", "file", path)
	return nil
}

// document is a status in the form that kubectl would show.
type document struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Metadata   metadata `json:"metadata"`
	Status     content  `json:"status"`
}

type metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace,omitempty"`
}

type content struct {
	Addresses  []Address   `json:"addresses,omitempty"`
	Conditions []Condition `json:"conditions,omitempty"`
	Listeners  []Listener  `json:"listeners,omitempty"`
	Parents    []Parent    `json:"parents,omitempty"`
}

func encode(s Status) ([]byte, error) {
	text, err := yaml.Marshal(document{
		APIVersion: s.Object.APIVersion, Kind: s.Object.Kind,
		Metadata: metadata{s.Object.Name, s.Object.Namespace},
		Status:   content{s.Addresses, s.Conditions, s.Listeners, s.Parents},
	})
	if err != nil {
		return nil, err
	}
	return append([]byte(mark), text...), nil
}

// fileName is flat: kind, namespace and name, escaped. The group tells apart
// kinds of the same name.
func fileName(o Object) string {
	group, _, found := strings.Cut(o.APIVersion, "/")
	if !found {
		group = "core"
	}
	var parts []string
	for _, p := range []string{strings.ToLower(o.Kind), group, o.Namespace, o.Name} {
		if p != "" {
			parts = append(parts, strings.ReplaceAll(url.PathEscape(p), "_", "%5F"))
		}
	}
	return strings.Join(parts, "_") + ".yaml"
}
