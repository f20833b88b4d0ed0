package h2

import "time"

// Config is what both ends of a connection are made with. Zero fields take the
// defaults of Istio's node proxy.
type Config struct {
	// StreamWindow and ConnWindow bound what a peer may send unread, in bytes; the
	// least is 65,535. Equal values could block readers that wait for one stream:
	// keep 4 to 1.
	StreamWindow, ConnWindow uint32
	// MaxBuffered bounds what the streams of a connection may hold for slow readers, in
	// bytes; ConnWindow comes on top. Below it the connection's window is given back at
	// once, so that a few slow streams do not stop the others.
	MaxBuffered uint32
	// MaxFrame is the largest payload taken, in bytes; no more than StreamWindow, since
	// nobody may send more at once.
	MaxFrame uint32
	// MaxHeaderList bounds a decoded header list, in bytes (section 6.5.2).
	MaxHeaderList uint32
	// MaxStreams is how many streams a peer may have open.
	MaxStreams uint32
	// ExtendedConnect lets clients ask for other protocols over a stream (RFC 8441).
	ExtendedConnect bool
	// PingInterval is the time between keepalive PINGs, none if negative; PingTimeout
	// ends the connection when one is not answered.
	PingInterval, PingTimeout time.Duration
	// PrefaceTimeout bounds the wait for the peer's preface and settings.
	PrefaceTimeout time.Duration
	// Resets is how many streams a peer may reset before they were answered, or make
	// us reset, before the connection ends (CVE-2023-44487, CVE-2025-8671). A busy
	// proxy that gives up many requests needs more.
	Resets Rate
	// Controls is how many frames a peer may send that carry no data of its own
	// (CVE-2019-9512 and after).
	Controls Rate
}

// Rate is a token bucket.
type Rate struct{ PerSecond, Burst float64 }

func (c Config) withDefaults() Config {
	set := func(v *uint32, def uint32) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.StreamWindow, 4<<20)
	set(&c.ConnWindow, 16<<20)
	// The peer counts from the default until it has our settings.
	c.StreamWindow, c.ConnWindow = max(c.StreamWindow, defaultWindow), max(c.ConnWindow, defaultWindow)
	set(&c.MaxBuffered, 32<<20)
	set(&c.MaxFrame, 1<<20)
	c.MaxFrame = min(c.MaxFrame, c.StreamWindow)
	set(&c.MaxHeaderList, 64<<10)
	set(&c.MaxStreams, 200)
	if c.PingInterval == 0 {
		c.PingInterval = 10 * time.Second
	}
	if c.PingTimeout == 0 {
		c.PingTimeout = 20 * time.Second
	}
	if c.PrefaceTimeout == 0 {
		c.PrefaceTimeout = 10 * time.Second
	}
	if c.Resets == (Rate{}) {
		c.Resets = Rate{PerSecond: 200, Burst: 1000}
	}
	if c.Controls == (Rate{}) {
		c.Controls = Rate{PerSecond: 1000, Burst: 5000}
	}
	return c
}

// budget is what is left of a rate.
type budget struct {
	Rate
	spent float64
	at    time.Time
}

// take spends one and reports whether it was there.
func (b *budget) take() bool {
	now := time.Now()
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*b.PerSecond)
	}
	b.at = now
	b.spent++
	return b.spent <= b.Burst
}
