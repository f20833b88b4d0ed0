package redirect

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// setSysctl sets a parameter of the calling thread's network namespace. The name
// has slashes. In a container /proc/sys is read-only unless it is privileged: then
// a procfs of the agent's own is mounted, where no path leads.
func setSysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/"+name, []byte(value), 0o644)
	if errors.Is(err, unix.EROFS) {
		err = setOwn(name, value)
	}
	if err != nil {
		return fmt.Errorf("sysctl %s: %w", name, err)
	}
	return nil
}

func setOwn(name, value string) error {
	procfs, err := ownProcfs()
	if err != nil {
		return err
	}
	// The parameters are those of the thread that opens the file, wherever the
	// procfs was mounted.
	fd, err := unix.Openat(procfs, "sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}

// ownProcfs is a detached mount; it stays for the life of the process.
var ownProcfs = sync.OnceValues(func() (int, error) {
	context, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("a procfs of the agent's own (needs CAP_SYS_ADMIN): %w", err)
	}
	defer unix.Close(context)
	if err := unix.FsconfigCreate(context); err != nil {
		return -1, fmt.Errorf("a procfs of the agent's own: %w", err)
	}
	mount, err := unix.Fsmount(context, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount a procfs of the agent's own: %w", err)
	}
	return mount, nil
})
