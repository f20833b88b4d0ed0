package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// runDir is where running labs keep what lives as long as they do.
const runDir = "/run/fairlead"

// place is where one lab keeps its things.
type place struct{ name string }

func placesDir() string               { return filepath.Join(runDir, "lab") }
func (p place) dir() string           { return filepath.Join(placesDir(), p.name) }
func (p place) in(s ...string) string { return filepath.Join(append([]string{p.dir()}, s...)...) }

func (p place) lockFile() string         { return filepath.Join(placesDir(), "."+p.name+".lock") }
func (p place) recordFile() string       { return p.in("lab.json") }
func (p place) socket() string           { return p.in("lab.sock") }
func (p place) rootCert() string         { return p.in("root-cert.pem") }
func (p place) tokenKey() string         { return p.in("token-key.pem") }
func (p place) logs() string             { return p.in("logs") }
func (p place) keys() string             { return p.in("keys") } // a tmpfs
func (p place) token(node string) string { return p.in("keys", node+".token") }
func (p place) certs(node string) string { return p.in("keys", node+".certs") }

// LogFile is where a part of a lab writes: "lab", "control-plane", "agent/n1", or
// "pod/namespace/name/container".
func LogFile(lab, what string) string {
	return place{lab}.in("logs", filepath.FromSlash(what)+".log")
}

// netnsPrefix begins the names of all the lab's namespaces. Names of labs hold no
// dot, so no lab's prefix begins another's.
func (p place) netnsPrefix() string { return "fairlead." + p.name + "." }

// instance is the name under which a node's agent pins its programs.
func (p place) instance(node string) string { return p.name + "--" + node }

// cgroup is the lab's own, under which every process of it lives.
func (p place) cgroup() (string, error) {
	root, err := sandbox.CgroupRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "fairlead", p.name), nil
}

// record is what is needed to clean up after a lab that was killed.
type record struct {
	Name     string   `json:"name"`
	Dir      string   `json:"dir"`
	PID      int      `json:"pid"`
	Binaries string   `json:"binaries"`
	Nodes    []string `json:"nodes"`
}

func (p place) write(r record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	next := p.recordFile() + ".next"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return fmt.Errorf("record the lab: %w", err)
	}
	if err := os.Rename(next, p.recordFile()); err != nil {
		return fmt.Errorf("record the lab: %w", err)
	}
	return nil
}

func (p place) read() (record, error) {
	var r record
	text, err := os.ReadFile(p.recordFile())
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("%s: %w", p.recordFile(), err)
	}
	return r, nil
}

// errRunning says that a lab's lock is held.
var errRunning = errors.New("is running")

// lock takes the lab for this process, until it is released or the process ends,
// however it ends.
func (p place) lock() (*os.File, error) {
	for {
		if err := os.MkdirAll(placesDir(), 0o700); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(p.lockFile(), os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // another lab's release took the directory away
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, fmt.Errorf("lab %s %w", p.name, errRunning)
			}
			return nil, fmt.Errorf("lock lab %s: %w", p.name, err)
		}
		held, err1 := f.Stat()
		named, err2 := os.Stat(p.lockFile())
		if err1 == nil && err2 == nil && os.SameFile(held, named) {
			return f, nil
		}
		_ = f.Close() // who held it before took the name away
	}
}

// release gives the lock back and leaves no file, and no directory unless another
// lab is in it.
func (p place) release(lock *os.File) {
	_ = os.Remove(p.lockFile())
	_ = lock.Close()
	_, _ = os.Remove(placesDir()), os.Remove(runDir)
}

// make prepares the lab's directories. Keys lie in a tmpfs of their own, because
// /run is not one everywhere.
func (p place) make() error {
	for _, d := range []string{p.dir(), p.logs(), p.keys(), p.in("enrol"), p.in("agents"), p.in("pods"), p.in("control-plane")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	if err := unix.Mount("fairlead", p.keys(), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64m,mode=700"); err != nil {
		return fmt.Errorf("mount a tmpfs for keys on %s: %w", p.keys(), err)
	}
	return nil
}

// unmake removes them again; what is not there is no error.
func (p place) unmake() error {
	for {
		err := unix.Unmount(p.keys(), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", p.keys(), err)
		}
	}
	return os.RemoveAll(p.dir())
}
