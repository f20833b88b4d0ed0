package e2e

import (
	"net/http"
	"slices"
	"time"
)

// outliers says which backends fail and what is to become of them.
type outliers struct {
	header    http.Header
	bad       []string
	most      int           // at a time
	errors    int           // in a row
	low, high time.Duration // out, the first time
	twice     bool          // watch the second time as well
}

// outliers sends a request every 20 ms or so and watches who is asked: one that is not
// for five seconds is out.
func (w *world) outliers(o outliers) {
	t := w.t
	t.Helper()
	const silent = 5 * time.Second
	began := time.Now()
	for _, b := range w.backends {
		b.forget()
	}
	end := began.Add(o.high + 10*time.Second)
	if o.twice {
		end = end.Add(3 * o.high)
	}
	c := w.http(1)
	defer c.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	answers := map[int]int{}
	for now := began; now.Before(end); now = <-tick.C {
		a := w.askOn(c, o.header)
		if a.err != nil {
			t.Fatal(a.err)
		}
		answers[a.status]++
		if a.took > silent {
			t.Fatalf("a request took %s: nothing can be said of who is out", a.took)
		}
	}
	t.Logf("answers by status: %v", answers)
	type pause struct{ from, to time.Time }
	pauses := map[string][]pause{}
	for _, name := range o.bad {
		b := w.backends[name]
		b.mu.Lock()
		at := append(slices.Clone(b.arrivals), time.Now())
		b.mu.Unlock()
		for i := 1; i < len(at); i++ {
			if at[i].Sub(at[i-1]) > silent {
				pauses[name] = append(pauses[name], pause{at[i-1], at[i]})
			}
		}
	}
	first, longer := 0, 0
	for name, list := range pauses {
		out := list[0].to.Sub(list[0].from)
		t.Logf("%s: first out for %.1f s, %d times in all", name, out.Seconds(), len(list))
		if list[0].from.Sub(began) < 5*time.Second {
			first++
			b := w.backends[name]
			n := 0
			b.mu.Lock()
			for _, a := range b.arrivals {
				if !a.After(list[0].from) {
					n++
				}
			}
			b.mu.Unlock()
			between(t, name+": errors before it is out", n, o.errors, o.errors+1)
		}
		if over := !list[0].to.Before(end); over && out < o.low {
			continue // it was left out for another that came back, and is not back yet
		}
		if out < o.low-time.Second || out > o.high+3*time.Second {
			t.Errorf("%s was out for %s, want %s to %s", name, out, o.low, o.high)
		}
		if len(list) > 1 && list[1].to.Before(end) {
			if again := list[1].to.Sub(list[1].from); again > out+5*time.Second {
				longer++
			}
		}
	}
	between(t, "out at first", first, o.most, o.most)
	// Never more than that at a time.
	for _, list := range pauses {
		for _, p := range list {
			at, n := p.from.Add(silent), 0
			for _, others := range pauses {
				for _, q := range others {
					if !at.Before(q.from) && at.Before(q.to) {
						n++
					}
				}
			}
			if n > o.most {
				t.Errorf("%d are out at a time, want at most %d", n, o.most)
			}
		}
	}
	if o.twice && longer == 0 {
		t.Errorf("none was out for longer the second time: %v", pauses)
	}
}
