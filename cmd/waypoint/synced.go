package main

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// synced lets readiness wait for each type's first answer.
type synced struct {
	done  map[string]func()
	named func() // what the first answers name is there, too

	// mu guards below.
	mu      sync.Mutex
	missing map[string]bool
	all     chan struct{} // closes with the last one
}

func newSynced(ready *admin.Readiness, types ...string) *synced {
	s := &synced{done: map[string]func(){}, named: ready.Wait("endpoints and routes"), missing: map[string]bool{}, all: make(chan struct{})}
	for _, t := range types {
		s.done[t] = ready.Wait(t[strings.LastIndexByte(t, '.')+1:])
		s.missing[t] = true
	}
	return s
}

func (s *synced) mark(typeURL string) {
	done := s.done[typeURL]
	if done == nil {
		return
	}
	done()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.missing[typeURL] {
		return
	}
	delete(s.missing, typeURL)
	if len(s.missing) == 0 {
		close(s.all)
	}
}

// fetchTimeout bounds the wait for what the first configuration names: Envoy's
// initial_fetch_timeout. Past it what has come is served.
const fetchTimeout = 15 * time.Second

// awaitNamed keeps the waypoint unready until the endpoints and routes that its first
// clusters and listeners name are there, too.
func awaitNamed(ctx context.Context, s *synced, client *xds.Client, log *slog.Logger) error {
	select {
	case <-s.all:
	case <-ctx.Done():
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(fetchTimeout)
	for {
		awaited := client.State().Awaited
		if len(awaited) == 0 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-late:
			log.Warn("endpoints or routes did not come: what they are needed for answers 503", "awaited", awaited)
		case <-ctx.Done():
			return nil
		}
		break
	}
	s.named()
	<-ctx.Done()
	return nil
}
