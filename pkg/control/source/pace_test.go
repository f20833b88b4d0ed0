package source

import (
	"testing"
	"time"
)

// Lone changes are read at once, and so are a few that come together; a storm of them is
// read once in each interval.
func TestPace(t *testing.T) {
	const interval = 10 * time.Millisecond
	start := time.Unix(1000, 0)
	read := func(p *pace, now time.Time) time.Time {
		now = now.Add(p.wait(now))
		p.note(now)
		return now
	}
	p := &pace{interval: interval}
	now := start
	for i := range 100 { // one in each interval, and a bit
		if at := read(p, now); !at.Equal(now) {
			t.Fatalf("change %d waits %v", i, at.Sub(now))
		}
		now = now.Add(interval + time.Millisecond)
	}
	now = now.Add(time.Second)
	began := now
	for i := range 1000 { // as fast as it can
		now = read(p, now)
		if i <= atOnce && !now.Equal(began) {
			t.Errorf("reading %d waits %v", i, now.Sub(began))
		}
	}
	if took, least := now.Sub(began), (1000-1-atOnce)*interval; took < least {
		t.Errorf("1000 readings took %v, want %v", took, least)
	}
}
