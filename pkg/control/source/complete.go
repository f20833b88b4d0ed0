package source

import (
	"os"

	"golang.org/x/sys/unix"
)

// complete tells whether a file of objects is there and nobody has it open for
// writing, so that it is not in the middle of a save. The kernel says so by
// granting a lease on it (fcntl(2), F_SETLEASE), which is given back at once;
// where it does not grant leases, as on network file systems, the answer is no.
func complete(path string) bool {
	if !isObjectFile(path) {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 {
		return false
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK); err != nil {
		return false
	}
	_, _ = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK) // closing gives it back too
	return true
}

func incomplete(path string) bool { return !complete(path) }
