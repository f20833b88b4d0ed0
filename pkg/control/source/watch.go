package source

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// maxNoted bounds the names of changed files; with more, all are looked at.
const maxNoted = 1024

// watch collects which files the kernel says have changed. Nil is one that never
// says anything.
type watch struct {
	watcher *fsnotify.Watcher
	logger  *slog.Logger
	some    chan struct{} // holds one if anything was noted
	done    chan struct{}

	// mu guards below.
	mu          sync.Mutex
	directories map[string]bool // those that are watched
	names       map[string]bool
	all         bool // anything may have changed
}

func newWatch(logger *slog.Logger) *watch {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		logger.Debug("no watches", "error", err)
		return nil
	}
	w := &watch{watcher: watcher, logger: logger, some: make(chan struct{}, 1), done: make(chan struct{}), directories: map[string]bool{}, names: map[string]bool{}}
	go w.pump()
	return w
}

func (w *watch) close() {
	if w != nil {
		w.watcher.Close()
		<-w.done
	}
}

func (w *watch) pump() {
	defer close(w.done)
	for {
		select {
		case e, ok := <-w.watcher.Events:
			if !ok {
				return
			}
			w.note(e)
		case _, ok := <-w.watcher.Errors:
			if !ok {
				return
			}
			w.noteAll() // what was lost is not known
		}
	}
}

// note takes an event. A file of another kind, such as one that is written to take
// an object file's place, is of no interest; a directory, or a link that may be to
// one, may be anything.
func (w *watch) note(e fsnotify.Event) {
	base := filepath.Base(e.Name)
	info, err := os.Lstat(e.Name)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.directories[e.Name], err == nil && info.IsDir(), len(w.names) > maxNoted:
		w.all = true
	case isObjectFile(base) && !strings.HasPrefix(base, "."):
		w.names[e.Name] = true
	case err == nil && info.Mode()&os.ModeSymlink != 0:
		w.all = true
	default:
		return
	}
	w.tellLocked()
}

func (w *watch) tellLocked() {
	select {
	case w.some <- struct{}{}:
	default:
	}
}

// noteAll has all files looked at.
func (w *watch) noteAll() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = true
	w.tellLocked()
}

func (w *watch) signal() <-chan struct{} {
	if w == nil {
		return nil
	}
	return w.some
}

// maxFew is how many files are looked at one by one when they change at once.
const maxFew = 16

// few are the files that have changed, or none if they are more than a few. some tells
// whether there is anything to look at: what was noted may have been taken meanwhile.
func (w *watch) few() (paths []string, some bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.names) > maxFew || w.all {
		return nil, true
	}
	for name := range w.names {
		paths = append(paths, name)
	}
	return paths, len(paths) > 0
}

// take returns what was noted, and forgets it.
func (w *watch) take() (names []string, all bool) {
	if w == nil {
		return nil, true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.names {
		names = append(names, name)
	}
	all = w.all
	clear(w.names)
	w.all = false
	return names, all
}

// add watches directories that are not watched yet, and tells whether there were any.
func (w *watch) add(directories []string) (more bool) {
	if w == nil {
		return false
	}
	known := map[string]bool{}
	for _, dir := range w.watcher.WatchList() {
		known[dir] = true
	}
	for _, dir := range directories {
		if known[dir] {
			continue
		}
		if err := w.watcher.Add(dir); err != nil {
			w.logger.Debug("a directory is read again at intervals only", "directory", dir, "error", err)
			continue
		}
		more = true
	}
	now := make(map[string]bool, len(directories))
	for _, dir := range directories {
		now[dir] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.directories = now
	return more
}
