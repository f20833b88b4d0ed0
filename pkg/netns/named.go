package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// Dir holds the named namespaces, as iproute2 keeps them: what is made here
// shows in `ip netns` and the other way round.
const Dir = "/run/netns"

// New makes an empty namespace (only lo, down) and gives it a name under [Dir].
func New(name string) (*NS, error) {
	path, err := namedPath(name)
	if err != nil {
		return nil, err
	}
	if err := prepareDir(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	_ = f.Close()
	if err := bindNew(path); err != nil {
		_ = os.Remove(path)
		return nil, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	ns, err := Open(path)
	if err != nil {
		return nil, errors.Join(err, Delete(name))
	}
	return ns, nil
}

// Delete takes the name away; the namespace itself ends with its last process,
// socket and handle. Deleting what is not there is no error.
func Delete(name string) error {
	path, err := namedPath(name)
	if err != nil {
		return err
	}
	// EINVAL: the file is there but nothing is mounted on it (a half-made name).
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the name of network namespace %s: %w", name, err)
	}
	return nil
}

// List returns the names under [Dir], sorted.
func List() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names, nil
}

func namedPath(name string) (string, error) {
	if name == "" || name == "." || name == ".." || filepath.Base(name) != name {
		return "", fmt.Errorf("%q cannot be the name of a network namespace: it must be a plain file name", name)
	}
	return filepath.Join(Dir, name), nil
}

// bindNew makes a namespace on a thread of its own and mounts it on path.
func bindNew(path string) error {
	home, err := processNS()
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("unshare: %w", err)
			return
		}
		err := unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		if err != nil {
			err = fmt.Errorf("mount on %s: %w", path, err)
		}
		result <- err
	}()
	return <-result
}

// prepareDir makes Dir a shared mount point as iproute2 does, so that a name
// deleted in one mount namespace goes away in all of them. Several processes may
// come here at once: the lock keeps them from mounting it on itself twice.
func prepareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return fmt.Errorf("prepare %s: %w", Dir, err)
	}
	lock, err := unix.Open(Dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("prepare %s: %w", Dir, err)
	}
	defer unix.Close(lock)
	if err := unix.Flock(lock, unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", Dir, err)
	}
	err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // not a mount point yet
		if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s on itself: %w", Dir, err)
		}
		err = unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	}
	if err != nil {
		return fmt.Errorf("share %s between mount namespaces: %w", Dir, err)
	}
	return nil
}
