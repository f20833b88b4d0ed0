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
	ledger ledger
}

type fileState struct {
	size    int64
	modTime time.Time
	inode   uint64
	sum     [sha256.Size]byte
	hidden  time.Time // since when it is missing or empty; zero: it is not
	failure string    // why it could not be read
}

type scanResult struct {
	changed bool
	// pending: a file is missing or empty, and may be in the middle of a save.
	pending bool
}

// scan reads what changed. A file that had content and is now missing or empty
// is left as it was until it has been so for the grace.
func (t *tree) scan(grace time.Duration) (scanResult, error) {
	if t.files == nil {
		t.files = map[entryKey]*fileState{}
	}
	var result scanResult
	seen := map[entryKey]bool{}
	for _, r := range t.roots {
		err := t.walk(r, func(key entryKey, path string, info fs.FileInfo) {
			seen[key] = true
			t.look(key, path, info, grace, &result)
		})
		if errors.Is(err, fs.ErrNotExist) && r.optional {
			continue
		}
		if err != nil {
			return scanResult{}, err
		}
	}
	for key, state := range t.files {
		if seen[key] {
			continue
		}
		if state.wait(grace, &result) {
			t.ledger.leaving(key.name, key.derived, true)
			continue
		}
		delete(t.files, key)
		t.ledger.drop(key.name, key.derived)
		result.changed = true
	}
	return result, nil
}

// wait tells whether a missing or empty file is still within its grace.
func (s *fileState) wait(grace time.Duration, result *scanResult) bool {
	if s.hidden.IsZero() {
		s.hidden = time.Now()
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
	data, err := readFile(path)
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
	if state != nil && len(data) == 0 && state.size > 0 && state.wait(grace, result) {
		t.ledger.leaving(key.name, key.derived, true)
		return
	}
	sum := sha256.Sum256(data)
	next := &fileState{size: info.Size(), modTime: info.ModTime(), inode: inode(info), sum: sum}
	t.files[key] = next
	t.ledger.leaving(key.name, key.derived, false)
	if state != nil && state.sum == sum && state.failure == "" {
		return
	}
	t.ledger.put(key.name, key.derived, data)
	result.changed = true
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFileSize+1))
}

// walk visits the YAML and JSON files of a root. Hidden files and directories
// are skipped; links to files are followed, links to directories are not.
func (t *tree) walk(r root, visit func(entryKey, string, fs.FileInfo)) error {
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
		if entry.IsDir() || !isObjectFile(entry.Name()) {
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
		visit(entryKey{name, r.derived}, path, info)
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

// directories are those that must be watched.
func (t *tree) directories() []string {
	var dirs []string
	for _, r := range t.roots {
		// An error here is one that scan reports.
		_ = filepath.WalkDir(r.dir, func(path string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil
			case !entry.IsDir():
				return nil
			case path != r.dir && strings.HasPrefix(entry.Name(), "."):
				return filepath.SkipDir
			}
			dirs = append(dirs, path)
			return nil
		})
	}
	return dirs
}
