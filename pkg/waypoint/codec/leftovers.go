package codec

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// What goroutines leave that end because their connections park, the runtime keeps
// until its next collection; in a process with nothing to do that is two minutes away.
const (
	// leftoversAfter is how long after one parked it is looked at, so that it is once
	// for many.
	leftoversAfter = 2 * time.Second
	// leftoversFrom is how many bytes of stacks that nobody uses are worth a collection.
	leftoversFrom = 8 << 20
	// usualStack is about what a goroutine has here, in bytes.
	usualStack = 16 << 10
)

// looksForLeftovers is set while a look is planned.
var looksForLeftovers atomic.Bool

// leftovers has memory given back to the system, a while later and if there is much.
func leftovers() {
	if looksForLeftovers.CompareAndSwap(false, true) {
		time.AfterFunc(leftoversAfter, func() {
			looksForLeftovers.Store(false)
			if stackBytes() > leftoversFrom+uint64(runtime.NumGoroutine())*usualStack {
				debug.FreeOSMemory()
			}
		})
	}
}

// stackBytes is what all stacks take, those that are not in use included.
func stackBytes() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
