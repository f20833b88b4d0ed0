package main

import (
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// asFairlead makes the test's own binary the command line, so that its start can be measured.
const asFairlead = "FAIRLEAD_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asFairlead) != "" {
		root := newRoot()
		root.SetArgs(os.Args[1:])
		root.SetOut(io.Discard)
		os.Exit(report(root.Execute()))
	}
	os.Exit(m.Run())
}

// TestStartIsQuick bounds the CPU that a call costs before it does anything: scripts call
// the command line in loops, and a lab's pods are this binary too.
func TestStartIsQuick(t *testing.T) {
	const limit = 100 * time.Millisecond
	best := time.Hour
	for range 5 {
		cmd := exec.Command(os.Args[0], "--help")
		cmd.Env = append(os.Environ(), asFairlead+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		best = min(best, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	if best > limit {
		t.Errorf("--help takes %v of CPU, more than %v", best, limit)
	}
	t.Logf("--help takes %v of CPU", best)
}

// TestCommandsAreCheapToMake bounds what every call, and every pod of a lab, pays for the
// commands that it does not use: nothing is read or rendered before a command runs.
func TestCommandsAreCheapToMake(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	newRoot()
	runtime.ReadMemStats(&after)
	if made := (after.TotalAlloc - before.TotalAlloc) >> 10; made > 2048 {
		t.Errorf("the commands take %d KiB to make", made)
	}
}
