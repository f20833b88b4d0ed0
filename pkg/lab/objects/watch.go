package objects

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long the directory must be quiet before it is read: editors
// write in several steps.
const settle = 30 * time.Millisecond

// Watch calls changed whenever something under root that matters changed, until
// ctx ends. Directories made later are watched as well.
func Watch(ctx context.Context, root string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch %s: %w", root, err)
	}
	defer w.Close()
	if err := watchTree(w, root); err != nil {
		return err
	}
	changed() // what changed before the watch stood
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
			quiet.Reset(settle)
		case <-quiet.C:
			changed()
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
