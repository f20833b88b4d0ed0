package redirect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Each link is pinned, so that it outlives the agent, and held, so that it outlives its
// pin: whoever wipes the BPF file system detaches nothing while an agent runs.

// holdAll takes hold of what is attached already.
func (r *Redirector) holdAll() error {
	var errs []error
	names := entries(filepath.Join(r.pins, linksDir), &errs)
	r.attached.Lock()
	defer r.attached.Unlock()
	for name := range names {
		if r.links[name] != nil {
			continue
		}
		l, err := link.LoadPinnedLink(r.linkPath(name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("pin %s: %w", name, err))
			continue
		}
		r.links[name] = l
	}
	return errors.Join(errs...)
}

// hold takes over the link of that name, with the new program, which replaces the old
// one at once; or attaches and pins. At no time are there two links: both of their
// programs would act.
func (r *Redirector) hold(name string, program *ebpf.Program, attach func() (link.Link, error)) error {
	path := r.linkPath(name)
	r.attached.Lock()
	defer r.attached.Unlock()
	l, err := link.LoadPinnedLink(path, nil)
	switch {
	case err == nil:
		r.letGo(name)
		r.links[name] = l
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if l = r.links[name]; l != nil {
		err := l.Update(program)
		if err == nil {
			return pinLink(path, l)
		}
		if !errors.Is(err, unix.ENOLINK) {
			return fmt.Errorf("replace the program: %w", err)
		}
		// Severed: what it was attached to is gone, or it was detached.
		_ = l.Unpin()
		r.letGo(name)
	}
	if l, err = attach(); err != nil {
		return err
	}
	if err := l.Pin(path); err != nil {
		_ = l.Close()
		return fmt.Errorf("pin: %w", err)
	}
	r.links[name] = l
	return nil
}

// letGo is called with r.attached held.
func (r *Redirector) letGo(name string) {
	if l := r.links[name]; l != nil {
		_ = l.Close()
		delete(r.links, name)
	}
}

// detach takes off at once what is attached by that name, and its pin: a link that is
// merely let go of acts a moment longer. It reports whether there was any.
func (r *Redirector) detach(name string) (bool, error) {
	r.attached.Lock()
	defer r.attached.Unlock()
	there, err := unpin(r.linkPath(name))
	if l := r.links[name]; l != nil {
		there = true
		err = errors.Join(err, takeOff(l))
		r.letGo(name)
	}
	return there, err
}

// unpin detaches what is pinned at path.
func unpin(path string) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Close()
	return true, errors.Join(takeOff(l), l.Unpin())
}

func takeOff(l link.Link) error {
	if err := l.Detach(); err != nil && !errors.Is(err, unix.ENOLINK) && !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	return nil
}

// pinLink pins a link where its pin is gone.
func pinLink(path string, l link.Link) error {
	if there, err := exists(path); there || err != nil {
		return err
	}
	c, err := another(l)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Pin(path)
}

// another is the same link, which knows of no pin.
func another(l link.Link) (link.Link, error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	return link.NewFromID(info.ID)
}
