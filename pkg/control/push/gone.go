package push

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// lookEvery is how often it is looked whether callers are still there. Their tokens were
// proved when their streams began, which may be open for weeks.
const lookEvery = time.Minute

// Run ends the streams of callers whose pods are not there any more, until ctx ends: who kept
// the connection of a pod that was deleted, or of a node that was taken out, is told nothing more. exists
// tells whether a caller's pod is; where it cannot, the stream goes on.
func (s *Server) Run(ctx context.Context, exists func(context.Context, token.Caller) (bool, error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			s.look(ctx, exists)
		}
	}
}

func (s *Server) look(ctx context.Context, exists func(context.Context, token.Caller) (bool, error)) {
	s.mu.Lock()
	all := make([]*client, 0, len(s.clients))
	for c := range s.clients {
		all = append(all, c)
	}
	s.mu.Unlock()
	for _, c := range all {
		if there, err := exists(ctx, c.caller); there || err != nil || ctx.Err() != nil {
			continue
		}
		s.mu.Lock()
		s.endLocked(c, status.Errorf(codes.Unauthenticated, "the pod %s/%s on node %s is not there any more", c.caller.Namespace, c.caller.Pod, c.caller.Node))
		s.mu.Unlock()
	}
}

// endLocked ends a client's stream, unless it has ended.
func (s *Server) endLocked(c *client, why error) {
	if _, there := s.clients[c]; !there {
		return
	}
	delete(s.clients, c)
	c.why = why
	close(c.over)
}
