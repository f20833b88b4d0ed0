// Package condition waits in tests for what other goroutines bring about.
//
// For tests of any package.
package condition

import (
	"testing"
	"time"
)

// patience is more than any wait takes on a busy machine.
const patience = 30 * time.Second

// Await returns as soon as ok holds, which is asked every millisecond. The test fails
// where it does not in 30 s; what says what was waited for.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in %s: %s", patience, what)
		}
	}
}
