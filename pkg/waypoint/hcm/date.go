package hcm

import (
	"sync/atomic"
	"time"
)

// stamp is the Date field of one second.
type stamp struct {
	second int64
	text   string
}

var lastStamp atomic.Pointer[stamp]

// date is the Date field (RFC 9110 section 6.6.1), made once a second.
func date(now time.Time) string {
	second := now.Unix()
	if s := lastStamp.Load(); s != nil && s.second == second {
		return s.text
	}
	s := &stamp{second, now.UTC().Format("Mon, 02 Jan 2006 15:04:05 GMT")}
	lastStamp.Store(s)
	return s.text
}
