package run

import (
	"runtime/debug"
	"testing"
)

// The collector keeps to a part of the container's limit, unless it was told otherwise.
func TestMemoryLimitOfTheContainer(t *testing.T) {
	none := debug.SetMemoryLimit(-1)
	for _, c := range []struct {
		limit, own string
		want       int64
		wrong      bool
	}{
		{limit: "1000000000", want: 900_000_000},
		{limit: "", want: none},
		{limit: "1000000000", own: "1GiB", want: none},
		{limit: "1Gi", want: none, wrong: true},
		{limit: "-1", want: none, wrong: true},
	} {
		t.Setenv(memoryLimit, c.limit)
		t.Setenv("GOMEMLIMIT", c.own) // read at the start of a process, and not again
		err := LimitMemory()
		if got := debug.SetMemoryLimit(none); got != c.want || (err != nil) != c.wrong {
			t.Errorf("%+v: limit %d, error %v", c, got, err)
		}
	}
}
