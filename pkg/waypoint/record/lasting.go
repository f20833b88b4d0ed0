package record

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// lasting are the exchanges of gRPC that take long: their messages are counted while
// they run, by what is known of them by then. The status is not, so that what was counted
// before the end stands under none.
type lasting struct {
	// mu guards below.
	mu   sync.Mutex
	live map[*streaminfo.Info]*stream
}

// stream is one of them. lasting.mu guards what was reported.
type stream struct {
	messages
	reportedRequests, reportedReplies uint64
}

// follow begins to count an exchange, or goes on under other labels.
func (l *lasting) follow(i *streaminfo.Info, m messages) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.live[i]
	if s == nil {
		s = &stream{messages: m}
		l.live[i] = s
	}
	s.report(i)
	s.messages = m
}

// end counts the rest of an exchange, under the labels of its end. These may be of no
// exchange of gRPC: a route can take the field away that says so.
func (l *lasting) end(i *streaminfo.Info, m messages) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.live[i]
	if s == nil {
		s = &stream{}
	}
	delete(l.live, i)
	if m.requests != nil {
		s.messages = m
	}
	if s.requests != nil {
		s.report(i)
	}
}

func (l *lasting) forget(i *streaminfo.Info) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.live, i)
}

func (l *lasting) reportAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, s := range l.live {
		s.report(i)
	}
}

// report adds the messages since the last time.
func (s *stream) report(i *streaminfo.Info) {
	requests, replies := i.RequestMessages.Count(), i.ResponseMessages.Count()
	s.requests.Add(float64(requests - s.reportedRequests))
	s.replies.Add(float64(replies - s.reportedReplies))
	s.reportedRequests, s.reportedReplies = requests, replies
}

// followed is a counter of messages whose exchanges report before it is collected.
type followed struct {
	*prometheus.CounterVec
	lasting *lasting
}

// Collect implements [prometheus.Collector].
func (f followed) Collect(ch chan<- prometheus.Metric) {
	f.lasting.reportAll()
	f.CounterVec.Collect(ch)
}
