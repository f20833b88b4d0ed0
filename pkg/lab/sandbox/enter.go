package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter is the child's side of [Start]: it makes the process's surroundings and
// becomes the program. It returns only on failure, or with the name and arguments
// of a program that the binary carries and the caller now runs.
func Enter() (*Program, error) {
	s, err := readSpec()
	if err != nil {
		return nil, err
	}
	if !s.Bare {
		if err := s.surround(); err != nil {
			return nil, err
		}
	}
	if s.Dir != "" {
		if err := os.Chdir(s.Dir); err != nil {
			return nil, err
		}
	}
	if s.Program != nil {
		return s.Program, nil
	}
	if len(s.Argv) == 0 {
		return nil, errors.New("no program to start")
	}
	path, err := exec.LookPath(s.Argv[0])
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", s.Argv[0], err)
	}
	return nil, fmt.Errorf("start %s: %w", path, syscall.Exec(path, s.Argv, s.Env))
}

// surround works on the mount namespace that the child was born with.
func (s Spec) surround() error {
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
	}
	// What the machine unmounts goes away here too, nothing goes the other way.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("cut the way of mounts back to the machine: %w", err)
	}
	for target, source := range s.Files {
		// /etc/resolv.conf is often a link: the file behind it is what is covered.
		real, err := filepath.EvalSymlinks(target)
		if err != nil {
			return fmt.Errorf("cover %s: %w", target, err)
		}
		if err := unix.Mount(source, real, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", target, err)
		}
	}
	for _, dir := range s.Detach {
		// Each new mount on the machine would be passed on to every pod otherwise.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("detach %s: %w", dir, err)
		}
	}
	for target, source := range s.Dirs {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("cover %s: %w", target, err)
		}
	}
	for _, dir := range s.Hide {
		if err := unix.Mount("none", dir, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "size=4k,mode=755"); err != nil {
			return fmt.Errorf("hide %s: %w", dir, err)
		}
	}
	return nil
}
