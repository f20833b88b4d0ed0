package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
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
	// Settle is how long nothing may change before the directories are read, and how
	// long an emptied or missing file is still taken for one that is being saved. Where
	// changes do not cease, the directories are read every fourth Settle, without the
	// files that someone has open for writing, for twenty of it at most. A few files
	// that are complete are read at once; while more and more of them change, four
	// times in each Settle. Default 50 ms.
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
	w := newWatch(d.opts.Logger)
	if w == nil {
		d.opts.Logger.Warn("changes of files are noticed by reading them again only", "every", d.opts.Rescan)
	}
	defer w.close()
	again := time.NewTimer(0)
	defer again.Stop()
	rescan := time.NewTimer(d.opts.Rescan)
	defer rescan.Stop()
	listed := make(chan func(), 1)
	w.noteAll()
	readings := pace{interval: d.opts.Settle / 4}
	var since time.Time // the first change after the last reading
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.signal():
			paths, some := w.few()
			if !some {
				continue
			}
			if since.IsZero() {
				since = time.Now()
			}
			wait := d.opts.Settle
			if len(paths) > 0 && !slices.ContainsFunc(paths, incomplete) {
				wait = readings.wait(time.Now())
			}
			again.Reset(min(wait, max(0, 4*d.opts.Settle-time.Since(since))))
			continue
		case <-again.C:
			paths, all := w.take()
			if all || w == nil {
				d.rescan(w, again)
			} else {
				d.apply(d.tree.read(paths, 4*d.opts.Settle), again)
			}
		case <-rescan.C:
			// Looking at thousands of files takes longer than a change may take, so it is
			// not waited for.
			go func() {
				start := time.Now()
				l, err := survey(d.tree.roots)
				took := time.Since(start)
				listed <- func() {
					d.takeListing(l, err, w, again)
					rescan.Reset(max(d.opts.Rescan, rest*took))
				}
			}()
			continue
		case take := <-listed:
			take()
			continue
		}
		readings.note(time.Now())
		since = time.Time{}
	}
}

// rest is how many times as long as it took the next look at all files waits: it is for
// what the kernel did not report, and costs 2 % of a CPU at most.
const rest = 50

// atOnce is how many readings may follow each other without a wait.
const atOnce = 4

// pace lets something happen at once, but not more often than once in each interval
// over some time. Its interval must be set.
type pace struct {
	interval time.Duration
	// due is when the next would be if there were one in each interval.
	due time.Time
}

// wait is how long the next has to wait.
func (p *pace) wait(now time.Time) time.Duration {
	return max(0, p.due.Add(-atOnce*p.interval).Sub(now))
}

// note takes one that happened into account.
func (p *pace) note(now time.Time) {
	if p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(p.interval)
}

// rescan looks at all files, at once.
func (d *Directory) rescan(w *watch, again *time.Timer) {
	l, err := survey(d.tree.roots)
	if err == nil && w.add(l.directories) {
		l, err = survey(d.tree.roots) // what came before they were watched
	}
	d.takeListing(l, err, w, again)
}

func (d *Directory) takeListing(l listing, err error, w *watch, again *time.Timer) {
	if err != nil {
		d.opts.Logger.Error("the directory cannot be read; what it held stays in force", "error", err)
		return
	}
	if w.add(l.directories) {
		w.noteAll()
	}
	d.apply(d.tree.take(l, 4*d.opts.Settle), again)
}

// apply publishes what was read. Where a file is being saved it is looked at again
// soon.
func (d *Directory) apply(result scanResult, again *time.Timer) {
	if result.changed {
		d.publish()
	}
	if result.pending {
		again.Reset(d.opts.Settle)
	}
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
	Report(d.opts.Logger, before, next.Problems)
}

// Report logs problems that were not there before.
func Report(logger *slog.Logger, before, now []Problem) {
	if len(before) == len(now) && (len(now) == 0 || &before[0] == &now[0]) {
		return
	}
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
		logger.Log(context.Background(), level, p.String())
	}
}
