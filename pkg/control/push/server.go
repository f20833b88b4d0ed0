package push

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// maxStreams is how many streams one agent may have: it needs one, and a
	// second while the first is being noticed to be dead.
	maxStreams = 4
	// longestWait bounds how long a stream waits for its turn to begin.
	longestWait = 15 * time.Second
	// longestStart is how long a stream that was told something, but not everything, still
	// counts as one that begins: a client may ask for less. One that was told nothing in
	// longestSilence ends: what it asks for may be large, and on its way for ever.
	longestStart   = 2 * time.Second
	longestSilence = 30 * time.Second
)

// Options of a [Server].
type Options struct {
	Log      *Log           // must be non-nil
	Reviewer token.Reviewer // must be non-nil
	// NodeAccounts may ask for workloads and policies: "namespace/service account".
	NodeAccounts []string
	// Waypoints have configurations of their own; their accounts may ask for
	// workloads and policies as well. Nil serves none.
	Waypoints *Waypoints
	// Door gives each stream its turn to begin, until it was told what it lacks: a
	// restart, which brings every agent at once, must not starve those that are served. It
	// must be non-nil.
	Door *door.Door
	// Identity is this replica's name, for who inspects it.
	Identity string
	Registry *prometheus.Registry // must be non-nil
	Logger   *slog.Logger         // must be non-nil
}

// Server is the aggregated discovery service.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	// inspectors has room for those who inspect at the same time.
	inspectors chan struct{}

	o       Options
	metrics *metrics
	lines   *rate.Limiter // of the log, for refused streams; the metric counts all

	// mu guards below.
	mu      sync.Mutex
	clients map[*client]struct{}
}

// NewServer registers its metrics.
func NewServer(o Options) (*Server, error) {
	if o.Log == nil || o.Reviewer == nil || o.Registry == nil || o.Logger == nil || o.Door == nil {
		return nil, errors.New("push: Log, Reviewer, Door, Registry and Logger must be set")
	}
	s := &Server{o: o, lines: rate.NewLimiter(5, 50), clients: map[*client]struct{}{}, inspectors: make(chan struct{}, maxInspectors)}
	var err error
	s.metrics, err = newMetrics(s, o.Registry)
	return s, err
}

// Service begins the names of its methods.
const Service = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

// Register serves on g, which must have been made with [Codec].
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// authorize proves the caller and that it may ask at all. Who may not does not
// use up the turns of those who may.
func (s *Server) authorize(ctx context.Context) (token.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	bearer, err := token.Bearer(md.Get("authorization"))
	if err != nil {
		return token.Caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	caller, err := s.o.Reviewer.Review(ctx, bearer)
	if errors.Is(err, token.ErrUnavailable) {
		return token.Caller{}, status.Error(codes.Unavailable, err.Error())
	}
	if err != nil {
		return token.Caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	if !slices.Contains(s.o.NodeAccounts, caller.Account()) && len(s.o.Waypoints.of(caller.Account())) == 0 {
		return caller, status.Errorf(codes.PermissionDenied, "service account %s is no node agent's (%s) and no waypoint Gateway's", caller.Account(), strings.Join(s.o.NodeAccounts, ", "))
	}
	return caller, nil
}

// begin waits for a stream's turn.
func (s *Server) begin(ctx context.Context) (*door.Turn, error) {
	ctx, cancel := context.WithTimeout(ctx, longestWait)
	defer cancel()
	turn, err := s.o.Door.Begin(ctx)
	if err != nil {
		return nil, status.Errorf(codes.ResourceExhausted, "many agents are connecting; try again: %v", err)
	}
	return turn, nil
}

// DeltaAggregatedResources implements the service.
func (s *Server) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(delta{stream}, meshChain(s.o.Log))
}

// StreamAggregatedResources implements the service, for a waypoint's own types and for
// who inspects the control plane.
func (s *Server) StreamAggregatedResources(stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	if s.inspector(stream.Context()) {
		return s.inspect(stream)
	}
	return s.serve(world{stream, map[string]map[string]bool{}})
}

// serve is one stream, from the proof of who calls to its end.
func (s *Server) serve(stream stream, chains ...*chain) error {
	from := ""
	if p, ok := peer.FromContext(stream.Context()); ok {
		from = p.Addr.String()
	}
	caller, err := s.authorize(stream.Context())
	var turn *door.Turn
	if err == nil {
		turn, err = s.begin(stream.Context())
	}
	if err != nil {
		s.metrics.refused.Inc()
		if s.lines.Allow() {
			s.o.Logger.Warn("discovery stream refused", "from", from, "account", caller.Account(), "err", err)
		}
		return err
	}
	c := &client{server: s, stream: stream, caller: caller, from: from, opened: time.Now(), over: make(chan struct{}), turn: turn, chains: chains}
	defer turn.End()
	s.add(c)
	err = c.run()
	s.remove(c)
	c.close()
	s.o.Logger.Info("discovery stream ended", "node", caller.Node, "from", from, "err", err)
	return err
}

// add counts a client in. If its agent has too many streams, the oldest ends.
func (s *Server) add(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c] = struct{}{}
	var same []*client
	for other := range s.clients {
		if other.caller == c.caller {
			same = append(same, other)
		}
	}
	if len(same) <= maxStreams {
		return
	}
	oldest := slices.MinFunc(same, func(a, b *client) int { return a.opened.Compare(b.opened) })
	s.endLocked(oldest, status.Errorf(codes.Aborted, "more than %d streams of %s on node %s: this one is the oldest", maxStreams, c.caller.Pod, c.caller.Node))
}

func (s *Server) remove(c *client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.clients, c)
}
