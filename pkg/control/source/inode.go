package source

import (
	"io/fs"
	"syscall"
)

// inode tells a file that was replaced from one that was written.
func inode(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
