package netns

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// InCgroup runs fn on a thread that is in the cgroup namespace at path, such as
// /proc/1/ns/cgroup: /proc/PID/cgroup shows paths as that namespace has them. The
// thread ends with fn.
func InCgroup(path string, fn func() error) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open cgroup namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and stays locked: the thread is thrown away
		if err := unix.Setns(fd, unix.CLONE_NEWCGROUP); err != nil {
			result <- fmt.Errorf("enter cgroup namespace %s: %w", path, err)
			return
		}
		result <- fn()
	}()
	return <-result
}
