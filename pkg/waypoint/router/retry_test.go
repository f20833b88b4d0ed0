package router

import (
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// What a server asks to wait is waited, and up to half as much again; what it may not
// ask, or does not say in a number, is not heeded.
func TestLimited(t *testing.T) {
	p := &route.Retry{RateLimitedMax: 10500 * time.Millisecond, ResetHeaders: []route.ResetHeader{{Name: "retry-after"}, {Name: "x-until", Unix: true}}}
	now := time.Unix(1_000_000, 500_000_000)
	for _, c := range []struct {
		after, until string
		want         time.Duration // 0: not heeded
	}{
		{"", "", 0}, {"3", "", 3 * time.Second}, {"10", "", 10 * time.Second}, {"11", "", 0}, {"-3", "", 0}, {"soon", "", 0}, {"99999999999999999999", "", 0},
		{"11", "1000002", 2 * time.Second}, {"soon", "999999", 0}, {"", "1000011", 0}, {"0", "1000002", 0}, {"4", "1000002", 4 * time.Second},
	} {
		r := &message.Response{}
		if c.after != "" {
			r.Fields.Add("retry-after", c.after)
		}
		if c.until != "" {
			r.Fields.Add("x-until", c.until)
		}
		for range 50 {
			d, ok := limited(p, r, now)
			if ok != (c.want > 0) || d < c.want || d > c.want*3/2 {
				t.Fatalf("retry-after %q, x-until %q: %s %v, want at least %s", c.after, c.until, d, ok, c.want)
			}
		}
	}
}
