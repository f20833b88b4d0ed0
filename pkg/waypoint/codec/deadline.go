package codec

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// deadline bounds waits on a connection without a timer's change for each: the
// connection's own is set only where it would end later than wanted. One that
// fires early is set again.
type deadline struct {
	set    func(time.Time) error // of the connection
	exact  bool                  // none may fire early: TLS does not survive it in a write
	wanted atomic.Int64          // unix nanoseconds, or 0 for none
	armed  atomic.Int64
}

// want sets the deadline; zero is none. Any goroutine may call it.
func (d *deadline) want(t time.Time) error {
	if t.IsZero() {
		d.wanted.Store(0)
		if d.exact && d.armed.Swap(0) != 0 {
			return d.set(t)
		}
		return nil
	}
	at := max(t.UnixNano(), 1)
	d.wanted.Store(at)
	if armed := d.armed.Load(); armed != 0 && armed <= at && !d.exact {
		return nil
	}
	d.armed.Store(at)
	return d.set(t)
}

// early reports whether err is of a deadline that is not the wanted one; the wait
// is then to be done again.
func (d *deadline) early(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	for {
		wanted := d.wanted.Load()
		if wanted != 0 && wanted <= time.Now().UnixNano() {
			// Nothing is armed that could fire again: the next want arms.
			d.armed.Store(0)
			return d.wanted.Load() != wanted && d.early(err)
		}
		d.armed.Store(wanted)
		var t time.Time
		if wanted != 0 {
			t = time.Unix(0, wanted)
		}
		if d.set(t) != nil {
			return false
		}
		if d.wanted.Load() == wanted {
			return true
		}
	}
}
