package record

import (
	"hash/maphash"
	"net/http"
	"strconv"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxSeries bounds the label sets of requests, and those of connections, and
	// maxPerService those of one service, so that one cannot use up the others' room.
	maxSeries     = 10_000
	maxPerService = 2_000
	// maxCached bounds what is found without making the labels.
	maxCached = 4_096
)

// series are the label sets that there are. Past the bounds the service, the code and
// the protocol are kept, and everything else is unknown.
type series struct {
	overflow prometheus.Counter

	// mu guards below.
	mu      sync.Mutex
	seen    map[uint64]struct{}
	service map[string]int
}

func newSeries(overflow prometheus.Counter) *series {
	return &series{overflow: overflow, seen: map[uint64]struct{}{}, service: map[string]int{}}
}

// admit returns the labels, or those that stand for them.
func (s *series) admit(values []string) []string {
	id := fingerprint(values)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.seen[id]; ok {
		return values
	}
	service := values[sourceTo]
	if len(s.seen) < maxSeries && s.service[service] < maxPerService {
		s.seen[id] = struct{}{}
		s.service[service]++
		return values
	}
	return s.unspecific(values)
}

// unspecific are the labels of all that is past the bounds. Services are bounded by
// the configuration, but for their sum.
func (s *series) unspecific(values []string) []string {
	for i := sourceFrom; i < sourceTo; i++ {
		values[i] = unknown
	}
	for i := destinationFrom; i < destinationTo; i++ {
		values[i] = unknown
	}
	values[flagsAt] = unknown
	if len(values) > codeAt {
		if code, err := strconv.Atoi(values[codeAt]); err != nil || http.StatusText(code) == "" {
			values[codeAt] = unknown
		}
	}
	id := fingerprint(values)
	if _, ok := s.seen[id]; !ok && len(s.seen) >= 2*maxSeries {
		for i := sourceTo; i < destinationFrom; i++ {
			values[i] = unknown
		}
	}
	s.seen[fingerprint(values)] = struct{}{}
	return values
}

// past tells whether labels are those of the overflow.
func past(values []string) bool { return values[flagsAt] == unknown }

var seed = maphash.MakeSeed()

// fingerprint tells label sets apart well enough to count them.
func fingerprint(values []string) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	for _, v := range values {
		_, _ = h.WriteString(v)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}
