package hcm

import (
	"sync/atomic"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// slowHead is which of the timeouts ends a head that does not come to its end, and what
// the client and the log are told.
type slowHead struct {
	after         time.Duration
	text, details string
	flags         streaminfo.Flags
}

const headTimeoutDetails = "request_header_timeout"

// slowest bounds a head where no timeout does so sooner: a client that holds back a head
// holds a connection and a buffer, and no honest one does.
const slowest = time.Minute

// slowHead is the shortest of the timeouts that a head counts for.
func (m *Manager) slowHead(headers time.Duration) slowHead {
	least := slowHead{slowest, "request header timeout", headTimeoutDetails, 0}
	for _, one := range []slowHead{
		{headers, least.text, least.details, 0},
		{m.requestTimeout, "request timeout", router.RequestTimeoutDetails, 0},
		{m.streamIdle, "stream timeout", router.IdleTimeoutDetails, streaminfo.StreamIdleTimeout},
		{m.maxStreamDuration, "downstream duration timeout", router.MaxDurationDetails, 0},
	} {
		if one.after > 0 && one.after < least.after {
			least = one
		}
	}
	return least
}

// timeoutStats count the exchanges that a connection manager's timeouts ended.
type timeoutStats struct{ request, head, idle, duration atomic.Uint64 }

// count counts an exchange by its response code details.
func (s *timeoutStats) count(details string) {
	switch details {
	case router.RequestTimeoutDetails:
		s.request.Add(1)
	case headTimeoutDetails:
		s.head.Add(1)
	case router.IdleTimeoutDetails:
		s.idle.Add(1)
	case router.MaxDurationDetails:
		s.duration.Add(1)
	}
}

func (s *timeoutStats) into(prefix string, out map[string]uint64) {
	out[prefix+"downstream_rq_timeout"] = s.request.Load()
	out[prefix+"downstream_rq_header_timeout"] = s.head.Load()
	out[prefix+"downstream_rq_idle_timeout"] = s.idle.Load()
	out[prefix+"downstream_rq_max_duration_reached"] = s.duration.Load()
}
