package h2

import "time"

// Config is what both ends of a connection are made with. Zero fields take the
// defaults of Istio's node proxy.
type Config struct {
	// StreamWindow and ConnWindow bound what a peer may send unread, in bytes.
	// Equal values could block readers that wait for one stream: keep 4 to 1.
	StreamWindow, ConnWindow uint32
	// MaxFrame is the largest payload taken, in bytes.
	MaxFrame uint32
	// MaxHeaderList bounds a decoded header list, in bytes (section 6.5.2).
	MaxHeaderList uint32
	// MaxStreams is how many streams a peer may have open.
	MaxStreams uint32
	// PingInterval is the time between keepalive PINGs; PingTimeout ends the
	// connection when one is not answered.
	PingInterval, PingTimeout time.Duration
	// PrefaceTimeout bounds the wait for the peer's preface and settings.
	PrefaceTimeout time.Duration
}

func (c Config) withDefaults() Config {
	set := func(v *uint32, def uint32) {
		if *v == 0 {
			*v = def
		}
	}
	set(&c.StreamWindow, 4<<20)
	set(&c.ConnWindow, 16<<20)
	set(&c.MaxFrame, 1<<20)
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
	return c
}
