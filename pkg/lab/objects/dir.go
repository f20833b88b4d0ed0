package objects

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Dir is a directory of YAML as last read. Not safe for concurrent use.
type Dir struct {
	root  string
	check func(metav1.Object) error
	files map[string]*file
	set   *Set // of the files' objects, or nil: they are others
}

// file is the last good state of one file, and the content last looked at.
type file struct {
	seen [sha256.Size]byte
	good decoded
	// missing is since when the file is not there, or empty; zero while it is. It may
	// be a moment of a save or of a rename.
	missing time.Time
}

// grace is how long a missing or empty file still counts.
const grace = 250 * time.Millisecond

// NewDir makes a reader of root. check may refuse an object.
func NewDir(root string, check func(metav1.Object) error) *Dir {
	return &Dir{root: root, check: check, files: map[string]*file{}}
}

// Result is what a look at the directory gave.
type Result struct {
	Set *Set
	// Problems are new since the last look: files that do not decode and stay at
	// their last good state, objects that two files define.
	Problems []error
	// Warnings are new since the last look.
	Warnings []string
	// Again is when to look again though nothing changed, or zero.
	Again time.Duration
}

// Load reads what changed since the last call: in the files of those paths and in
// those that were missing, or with nil in all that there are.
func (d *Dir) Load(paths []string) (Result, error) {
	var res Result
	looked := map[string]bool{} // true: it is there
	if paths == nil {
		err := d.walk(func(path string) { d.look(path, looked, &res) })
		if err != nil {
			return Result{}, fmt.Errorf("read %s: %w", d.root, err)
		}
	}
	for _, path := range paths {
		d.look(path, looked, &res)
	}
	for path, f := range d.files {
		present, known := looked[path]
		switch {
		case !known && paths != nil && f.missing.IsZero():
		case !known && paths != nil:
			d.look(path, looked, &res)
			d.stays(path, looked[path], &res)
		default:
			d.stays(path, present, &res)
		}
	}
	if d.set == nil {
		d.set = d.merge(&res)
	}
	res.Set = d.set
	return res, nil
}

// walk goes through all files of YAML.
func (d *Dir) walk(each func(path string)) error {
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // gone since it was listed
		case err != nil:
			return err
		case e.IsDir():
			if path != d.root && hidden(path) {
				return fs.SkipDir
			}
		case isYAML(path):
			each(path)
		}
		return nil
	})
}

// look reads a file, and notes whether it is there.
func (d *Dir) look(path string, looked map[string]bool, res *Result) {
	looked[path] = false
	text, err := os.ReadFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // for example a dangling link or an editor's lock
			res.Problems = append(res.Problems, err)
		}
		return
	}
	if f := d.files[path]; len(text) == 0 && f != nil && len(f.good.objects) > 0 {
		return // as if it were missing
	}
	looked[path] = true
	d.read(path, text, res)
}

// stays forgets a file that has been missing for long.
func (d *Dir) stays(path string, present bool, res *Result) {
	f := d.files[path]
	if present && f.missing.IsZero() {
		return
	}
	if len(f.good.objects) > 0 {
		d.set = nil // it may be without them, or of two definitions another may count
	}
	switch {
	case present:
		f.missing = time.Time{}
		return
	case f.missing.IsZero():
		f.missing = time.Now()
	}
	if time.Since(f.missing) >= grace {
		delete(d.files, path)
		return
	}
	res.Again = grace
}

func (d *Dir) read(path string, text []byte, res *Result) {
	sum := sha256.Sum256(text)
	f := d.files[path]
	if f == nil {
		f = &file{}
		d.files[path] = f
	} else if f.seen == sum {
		return
	}
	f.seen = sum
	got, err := decode(path, text, d.check)
	if err != nil {
		if len(f.good.objects) > 0 {
			err = fmt.Errorf("%w (the file's last good state stays)", err)
		}
		res.Problems = append(res.Problems, err)
		return
	}
	if len(f.good.objects)+len(got.objects) > 0 {
		d.set = nil
	}
	f.good = got
	res.Warnings = append(res.Warnings, got.warnings...)
}

// merge joins the files' last good states. Of two definitions the one of the
// first file, in the order of names, counts.
func (d *Dir) merge(res *Result) *Set {
	set := NewSet()
	type id struct {
		kind string
		key  Key
	}
	from := map[id]string{}
	// Files that are there come first: what was renamed counts where it is now.
	paths := slices.SortedFunc(maps.Keys(d.files), func(a, b string) int {
		if ma, mb := d.files[a].missing.IsZero(), d.files[b].missing.IsZero(); ma != mb {
			if ma {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	for _, path := range paths {
		for _, e := range d.files[path].good.objects {
			where := fmt.Sprintf("%s:%d", path, e.line)
			if first, twice := from[id{e.name, e.key}]; twice {
				if !d.files[path].missing.IsZero() {
					continue
				}
				res.Warnings = append(res.Warnings, fmt.Sprintf("%s: %s %s is already defined in %s, which counts", where, e.name, e.key, first))
				continue
			}
			from[id{e.name, e.key}] = where
			e.kind.put(set, e.key, e.obj)
		}
	}
	return set
}

func hidden(path string) bool { return strings.HasPrefix(filepath.Base(path), ".") }

func isYAML(path string) bool {
	ext := filepath.Ext(path)
	return !hidden(path) && (ext == ".yaml" || ext == ".yml")
}
