package run

import (
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
)

const (
	// memoryLimit is the variable with the container's limit in bytes, as the pod's
	// template takes it from limits.memory; without a limit that is the node's memory.
	memoryLimit = "MEMORY_LIMIT"
	// heapShare is how much of a limit, in percent, the collector takes as its own: the
	// kernel counts buffers of sockets and pages of files as well.
	heapShare = 90
)

// LimitMemory has the collector work harder rather than let the process come near its
// container's limit, where the kernel would end it. GOMEMLIMIT, where it is set, is what
// is meant. (How many CPUs a container may have, the runtime finds out itself.)
func LimitMemory() error {
	text := os.Getenv(memoryLimit)
	if text == "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	limit, err := strconv.ParseInt(text, 10, 64)
	if err != nil || limit <= 0 {
		return fmt.Errorf("%s=%q: want a number of bytes; the collector knows no limit", memoryLimit, text)
	}
	debug.SetMemoryLimit(limit / 100 * heapShare)
	return nil
}
