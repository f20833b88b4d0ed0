package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// root is one directory that is read.
type root struct {
	dir     string
	derived bool
	// optional roots may come later.
	optional bool
}

// tree is the files of the roots as they were last read.
type tree struct {
	roots  []root
	files  map[entryKey]*fileState
	hidden map[entryKey]bool // those that are missing, empty or being written, perhaps for the moment
	ledger ledger
}

type fileState struct {
	size    int64
	modTime time.Time
	inode   uint64
	sum     [sha256.Size]byte
	hidden  time.Time // since when it is missing, empty or being written; zero: it is not
	failure string    // why it could not be read
}

type scanResult struct {
	changed bool
	// pending: a file is missing, empty or being written, and may be in the middle of a save.
	pending bool
}

// listing is what is in the roots, as it was looked at some moment.
type listing struct {
	files []found
	// directories are those that must be watched.
	directories []string
}

type found struct {
	key  entryKey
	path string
	info fs.FileInfo
}

// survey looks at all files, and reads none.
func survey(roots []root) (listing, error) {
	var l listing
	for _, r := range roots {
		if err := l.walk(r); err != nil && (!errors.Is(err, fs.ErrNotExist) || !r.optional) {
			return listing{}, err
		}
	}
	return l, nil
}

// scan reads what changed. A file that had content and is now missing or empty
// is left as it was until it has been so for the grace, one that someone writes for
// longer.
func (t *tree) scan(grace time.Duration) (scanResult, error) {
	l, err := survey(t.roots)
	if err != nil {
		return scanResult{}, err
	}
	return t.take(l, grace), nil
}

// take reads what is not as a listing, perhaps of a moment ago, has it.
func (t *tree) take(l listing, grace time.Duration) (result scanResult) {
	if t.files == nil {
		t.files, t.hidden = map[entryKey]*fileState{}, map[entryKey]bool{}
	}
	seen := make(map[entryKey]bool, len(l.files))
	for _, f := range l.files {
		seen[f.key] = true
		t.look(f.key, f.path, f.info, grace, &result)
	}
	for key := range t.files {
		if !seen[key] {
			t.check(key, t.path(key), grace, &result)
		}
	}
	return result
}

// read looks at files by their paths, at those of which it is open whether they
// are being saved, and at those that have the same objects.
func (t *tree) read(paths []string, grace time.Duration) (result scanResult) {
	keys := map[entryKey]string{}
	for _, path := range paths {
		for _, r := range t.roots {
			if name, err := filepath.Rel(r.dir, path); err == nil && r.has(name) {
				keys[entryKey{name, r.derived}] = path
			}
		}
	}
	for key := range t.hidden {
		keys[key] = t.path(key)
	}
	var others []entryKey
	for key, path := range keys {
		t.check(key, path, grace, &result)
		others = append(others, t.ledger.rivals(key)...)
	}
	for _, key := range others {
		t.check(key, t.path(key), grace, &result)
	}
	return result
}

// has tells whether a file of that name would be found by walking the root.
func (r root) has(name string) bool {
	for part := range strings.SplitSeq(name, string(filepath.Separator)) {
		if strings.HasPrefix(part, ".") {
			return false
		}
	}
	return isObjectFile(name)
}

// path is where a file is.
func (t *tree) path(key entryKey) string {
	for _, r := range t.roots {
		if r.derived == key.derived {
			return filepath.Join(r.dir, key.name)
		}
	}
	return key.name
}

// check looks at one file, which may be missing.
func (t *tree) check(key entryKey, path string, grace time.Duration, result *scanResult) {
	info, err := os.Stat(path)
	if err == nil && info.Mode().IsRegular() {
		t.look(key, path, info, grace, result)
		return
	}
	state := t.files[key]
	if state == nil {
		return
	}
	if t.wait(key, state, grace, result) {
		t.ledger.leaving(key.name, key.derived, true)
		return
	}
	delete(t.files, key)
	delete(t.hidden, key)
	t.ledger.drop(key.name, key.derived)
	result.changed = true
}

// wait tells whether a file that is missing, empty or being written is still within its
// grace.
func (t *tree) wait(key entryKey, s *fileState, grace time.Duration, result *scanResult) bool {
	if s.hidden.IsZero() {
		s.hidden, t.hidden[key] = time.Now(), true
	}
	if time.Since(s.hidden) < grace {
		result.pending = true
		return true
	}
	return false
}

func (t *tree) look(key entryKey, path string, info fs.FileInfo, grace time.Duration, result *scanResult) {
	state := t.files[key]
	if state != nil && state.failure == "" && state.hidden.IsZero() && state.size == info.Size() && state.modTime.Equal(info.ModTime()) &&
		state.inode == inode(info) && time.Since(info.ModTime()) > time.Second {
		return // a file written within the clock's grain is read again
	}
	data, saving, err := readFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if state == nil {
			state = &fileState{}
			t.files[key] = state
		}
		if state.failure != err.Error() {
			state.failure = err.Error()
			t.ledger.unreadable(key.name, key.derived, err)
			result.changed = true
		}
		return
	}
	if state != nil && len(data) == 0 && state.size > 0 && t.wait(key, state, grace, result) {
		t.ledger.leaving(key.name, key.derived, true)
		return
	}
	if saving && state != nil && state.size > 0 && t.wait(key, state, longerSaves*grace, result) {
		return
	}
	sum := sha256.Sum256(data)
	next := &fileState{size: info.Size(), modTime: info.ModTime(), inode: inode(info), sum: sum}
	t.files[key] = next
	delete(t.hidden, key)
	t.ledger.leaving(key.name, key.derived, false)
	if state != nil && state.sum == sum && state.failure == "" {
		return
	}
	t.ledger.put(key.name, key.derived, data)
	result.changed = true
}

// longerSaves is how many times the grace a file that is open for writing is left as it
// was: what is there of it may be a part, without the policies that come later.
const longerSaves = 5

// readFile reads a file. saving tells whether someone has it open for writing; nobody
// begins to write while it is read, where the kernel grants leases: see [complete].
func readFile(path string) (data []byte, saving bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK) // closing gives it back
	saving = errors.Is(err, unix.EAGAIN)
	data, err = io.ReadAll(io.LimitReader(f, maxFileSize+1))
	return data, saving, err
}

// walk adds the YAML and JSON files of a root. Hidden files and directories
// are skipped; links to files are followed, links to directories are not.
func (l *listing) walk(r root) error {
	return filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path == r.dir {
				return fmt.Errorf("read %s: %w", r.dir, err)
			}
			return nil // gone in between, or not ours to read: the others count
		}
		if path != r.dir && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		if entry.IsDir() {
			l.directories = append(l.directories, path)
			return nil
		}
		if !isObjectFile(entry.Name()) {
			return nil
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil
		}
		name, err := filepath.Rel(r.dir, path)
		if err != nil {
			return fmt.Errorf("name %s within %s: %w", path, r.dir, err)
		}
		l.files = append(l.files, found{entryKey{name, r.derived}, path, info})
		return nil
	})
}

func isObjectFile(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
