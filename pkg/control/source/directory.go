package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Options configure a Directory.
type Options struct {
	// ConfigDir is the user's YAML, read recursively. Required.
	ConfigDir string
	// DerivedDir holds objects made by a machine (Pods with their status), in
	// the same form; they take the place of ConfigDir's of the same name. Optional.
	DerivedDir string
	// Rescan is how often the directories are read again even if the kernel
	// reported nothing. Default 2 s.
	Rescan time.Duration
	// Settle is how long nothing may change before the directories are read, unless
	// the one file that changed is complete, and how long an emptied or missing
	// file is still taken for one that is being saved. Where changes do not cease,
	// the directories are read every fourth Settle. Default 50 ms.
	Settle time.Duration
	Logger *slog.Logger
}

func (o *Options) complete() error {
	if o.ConfigDir == "" {
		return errors.New("source: Options.ConfigDir is empty: name the directory of YAML")
	}
	if o.Logger == nil {
		return errors.New("source: Options.Logger is nil")
	}
	if o.Rescan < 0 || o.Settle < 0 {
		return errors.New("source: Options.Rescan and Settle must not be negative")
	}
	if o.Rescan == 0 {
		o.Rescan = 2 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 50 * time.Millisecond
	}
	return nil
}

// Directory follows directories of YAML and publishes a snapshot per change.
type Directory struct {
	opts Options
	tree tree // touched by NewDirectory, then by Run alone

	mu      sync.Mutex
	current *Objects
	changed chan struct{}
}

// NewDirectory reads the directories once, so that Objects has an answer. It
// fails only where ConfigDir cannot be read at all.
func NewDirectory(opts Options) (*Directory, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	d := &Directory{opts: opts, changed: make(chan struct{})}
	d.tree.roots = []root{{dir: opts.ConfigDir}}
	if opts.DerivedDir != "" {
		d.tree.roots = append(d.tree.roots, root{dir: opts.DerivedDir, derived: true, optional: true})
	}
	if _, err := d.tree.scan(0); err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	d.publish()
	return d, nil
}

// Objects is the latest snapshot.
func (d *Directory) Objects() *Objects {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// Changed is closed when a newer snapshot than Objects was published. Take it
// before Objects, so that no change is missed.
func (d *Directory) Changed() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changed
}

// Run follows the directories until ctx ends. Call it once.
func (d *Directory) Run(ctx context.Context) error {
	events := make(chan string, 1)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.opts.Logger.Warn("changes of files are noticed by reading them again only", "every", d.opts.Rescan, "error", err)
	} else {
		done := make(chan struct{})
		go func() { defer close(done); pump(watcher, events) }()
		defer func() { watcher.Close(); <-done }()
	}
	rescan := time.NewTicker(d.opts.Rescan)
	defer rescan.Stop()
	d.watch(watcher)
	d.rescan()
	again := time.NewTimer(d.opts.Settle)
	defer again.Stop()
	read, since := time.Now(), time.Time{} // the last reading, and the first change after it
	for {
		select {
		case <-ctx.Done():
			return nil
		case name := <-events:
			if since.IsZero() {
				since = time.Now()
			}
			wait := d.opts.Settle
			if complete(name) {
				wait = max(0, d.opts.Settle/2-time.Since(read))
			}
			again.Reset(min(wait, max(0, 4*d.opts.Settle-time.Since(since))))
			continue
		case <-again.C:
		case <-rescan.C:
		}
		d.watch(watcher)
		if d.rescan() {
			again.Reset(d.opts.Settle)
		}
		read, since = time.Now(), time.Time{}
	}
}

// pump turns a watcher's events into one that is pending or not: the name of what
// changed, or "" if it was more than one.
func pump(w *fsnotify.Watcher, events chan string) {
	for {
		name := ""
		select {
		case e, ok := <-w.Events:
			if !ok {
				return
			}
			name = e.Name
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
		}
		select {
		case pending := <-events:
			if pending != name {
				name = ""
			}
		default:
		}
		events <- name // there is room: nobody else sends
	}
}

// watch follows every directory there is; the kernel forgets those removed.
func (d *Directory) watch(w *fsnotify.Watcher) {
	if w == nil {
		return
	}
	known := map[string]bool{}
	for _, dir := range w.WatchList() {
		known[dir] = true
	}
	for _, dir := range d.tree.directories() {
		if known[dir] {
			continue
		}
		if err := w.Add(dir); err != nil {
			d.opts.Logger.Debug("a directory is read again at intervals only", "directory", dir, "error", err)
		}
	}
}

// rescan reads what changed and publishes it. It tells whether a file is being
// saved, so that it must be looked at again soon.
func (d *Directory) rescan() (again bool) {
	result, err := d.tree.scan(4 * d.opts.Settle)
	if err != nil {
		d.opts.Logger.Error("the directory cannot be read; what it held stays in force", "error", err)
		return false
	}
	if result.changed {
		d.publish()
	}
	return result.pending
}

func (d *Directory) publish() {
	next := d.tree.ledger.objects()
	d.mu.Lock()
	var before []Problem
	next.Generation = 1
	if d.current != nil {
		before, next.Generation = d.current.Problems, d.current.Generation+1
	}
	d.current = next
	close(d.changed)
	d.changed = make(chan struct{})
	d.mu.Unlock()
	d.report(before, next.Problems)
}

// report logs problems that were not there before.
func (d *Directory) report(before, now []Problem) {
	known := make(map[Problem]bool, len(before))
	for _, p := range before {
		known[p] = true
	}
	for _, p := range now {
		if known[p] {
			continue
		}
		level := slog.LevelWarn
		if p.Severity == Error {
			level = slog.LevelError
		}
		d.opts.Logger.Log(context.Background(), level, p.String())
	}
}
