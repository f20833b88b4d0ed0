package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// interval is the least time between two pushes of a type to one client: a lone
// change goes at once, a storm of them twenty times a second.
const interval = 50 * time.Millisecond

// Options of a [Server].
type Options struct {
	Log      *Log           // must be non-nil
	Reviewer token.Reviewer // must be non-nil
	// NodeAccounts may ask for workloads and policies: "namespace/service account".
	NodeAccounts []string
	Registry     *prometheus.Registry // must be non-nil
	Logger       *slog.Logger         // must be non-nil
}

// Server is the aggregated discovery service.
type Server struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	o       Options
	pushes  *prometheus.CounterVec
	nacks   *prometheus.CounterVec
	refused prometheus.Counter
	bytes   prometheus.Counter

	// mu guards below.
	mu      sync.Mutex
	clients map[*client]struct{}
	next    uint64
}

// NewServer registers its metrics.
func NewServer(o Options) (*Server, error) {
	if o.Log == nil || o.Reviewer == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("push: Log, Reviewer, Registry and Logger must be set")
	}
	s := &Server{
		o:       o,
		pushes:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_pushes_total", Help: "Responses sent."}, []string{"type"}),
		nacks:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_xds_nacks_total", Help: "Responses that a client refused."}, []string{"type"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_refused_total", Help: "Streams refused for who asked."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_xds_sent_bytes_total", Help: "Bytes of resources sent."}),
		clients: map[*client]struct{}{},
	}
	connected := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "fairlead_xds_clients", Help: "Clients connected."}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.clients))
	})
	for _, c := range []prometheus.Collector{s.pushes, s.nacks, s.refused, s.bytes, connected} {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Register serves on g, which must have been made with [Codec].
func (s *Server) Register(g *grpc.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, s)
}

// authorize proves the caller and that it may ask at all.
func (s *Server) authorize(ctx context.Context) (token.Caller, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	bearer, err := token.Bearer(md.Get("authorization"))
	if err != nil {
		return token.Caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	caller, err := s.o.Reviewer.Review(ctx, bearer)
	if err != nil {
		return token.Caller{}, status.Error(codes.Unauthenticated, err.Error())
	}
	if !slices.Contains(s.o.NodeAccounts, caller.Account()) {
		return caller, status.Errorf(codes.PermissionDenied, "service account %s may not ask for workloads; those that may: %s", caller.Account(), strings.Join(s.o.NodeAccounts, ", "))
	}
	return caller, nil
}

// DeltaAggregatedResources implements the service.
func (s *Server) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	caller, err := s.authorize(stream.Context())
	from := ""
	if p, ok := peer.FromContext(stream.Context()); ok {
		from = p.Addr.String()
	}
	if err != nil {
		s.refused.Inc()
		s.o.Logger.Warn("discovery stream refused", "from", from, "err", err)
		return err
	}
	c := &client{server: s, stream: stream, caller: caller, from: from, since: time.Now(), subs: map[string]*subscription{}}
	s.mu.Lock()
	s.clients[c] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.clients, c)
		s.mu.Unlock()
	}()
	err = c.run()
	s.o.Logger.Info("discovery stream ended", "node", caller.Node, "from", from, "err", err)
	return err
}

func (s *Server) nonce() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return fmt.Sprintf("%x", s.next)
}

// Sync is one client as /debug/syncz shows it.
type Sync struct {
	Node, Caller, From string
	Connected          time.Time
	Types              map[string]TypeSync
}

// TypeSync is one client's state of one type.
type TypeSync struct {
	// Behind is how many changes the client has not been sent.
	Behind uint64
	// Sent and Acked are the last nonces.
	Sent, Acked string
	// Nack is why the client refused the last response, or "".
	Nack string `json:",omitempty"`
}

// Clients lists who is connected, by node.
func (s *Server) Clients() []Sync {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.clients))
	s.mu.Unlock()
	head, _ := s.o.Log.head()
	out := make([]Sync, 0, len(all))
	for _, c := range all {
		out = append(out, c.sync(head))
	}
	slices.SortFunc(out, func(a, b Sync) int { return strings.Compare(a.Node+a.From, b.Node+b.From) })
	return out
}
