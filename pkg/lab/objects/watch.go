package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read: editors
// write in several steps.
const settle = 30 * time.Millisecond

// Watch calls changed whenever something under root that matters changed, until
// ctx ends: with the paths of the files of YAML that did, or with nil where it may be
// any. Directories made later are watched as well.
func Watch(ctx context.Context, root string, changed func(paths []string)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", root, err)
	}
	defer w.Close()
	if err := watchTree(w, root); err != nil {
		return err
	}
	changed(nil) // what changed before the watch stood
	paths, all := []string{}, false
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err, ok := <-w.Errors:
			if !ok {
				return nil
			}
			if errors.Is(err, fsnotify.ErrEventOverflow) { // events were lost: look at all of it
				all = true
				quiet.Reset(settle)
				continue
			}
			return fmt.Errorf("watch %s: %w", root, err)
		case ev, ok := <-w.Events:
			if !ok {
				return nil
			}
			if inHidden(root, ev.Name) {
				continue
			}
			if ev.Has(fsnotify.Create) {
				// A directory, made or moved here; a plain file adds nothing.
				if err := watchTree(w, ev.Name); err != nil {
					return err
				}
			}
			switch info, err := os.Lstat(ev.Name); {
			case isYAML(ev.Name) && (err != nil || !info.IsDir()):
				paths = append(paths, ev.Name)
			case err == nil && info.Mode().IsRegular():
				continue // of no interest
			default:
				all = true
			}
			quiet.Reset(settle)
		case <-quiet.C:
			if all {
				paths = nil
			}
			changed(paths)
			paths, all = []string{}, false
		}
	}
}

func watchTree(w *fsnotify.Watcher, root string) error {
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if !e.IsDir() {
			return nil
		}
		if path != root && hidden(path) {
			return fs.SkipDir
		}
		return w.Add(path)
	})
	if err != nil {
		return fmt.Errorf("watch %s: %w", root, err)
	}
	return nil
}

// inHidden reports whether path lies in a hidden directory under root, such as
// the one the lab itself writes to.
func inHidden(root, path string) bool {
	for p := path; len(p) > len(root); p = filepath.Dir(p) {
		if hidden(p) {
			return true
		}
	}
	return false
}
