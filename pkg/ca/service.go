package ca

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	api "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/token"
	"github.com/fairlead-mesh/fairlead/pkg/turns"
)

const (
	// maxCSR bounds a request, in bytes of PEM.
	maxCSR = 16 << 10
	// burst and perSecond bound what one caller gets signed.
	burst, perSecond = 1000, 50
	// maxCallers bounds the memory of who asked.
	maxCallers = 10_000
	// linesPerSecond and linesAtOnce bound what is logged of refusals.
	linesPerSecond, linesAtOnce = 5, 50
)

// Pods is what the CA must know of the cluster.
type Pods interface {
	// Exists reports whether the caller's pod exists, with that uid, account and node.
	// An error: it could not be found out.
	Exists(ctx context.Context, caller token.Caller) (bool, error)
	// OnNode reports whether a pod of that account, which has not ended, is on the node.
	// An error: it could not be found out.
	OnNode(ctx context.Context, node, namespace, serviceAccount string) (bool, error)
}

// Options of a [Service].
type Options struct {
	// Authority is what signs now, or nil: none does yet. It may become another at any
	// time. Must be non-nil.
	Authority   func() *Authority
	Reviewer    token.Reviewer // must be non-nil
	Pods        Pods           // must be non-nil
	TrustDomain func() string  // must be non-nil
	// NodeAccounts may ask on behalf of pods of their node.
	NodeAccounts []string
	Registry     *prometheus.Registry // must be non-nil
	Logger       *slog.Logger         // must be non-nil
}

// Service is istio.v1.auth.IstioCertificateService.
type Service struct {
	o       Options
	issued  prometheus.Counter
	refused *prometheus.CounterVec
	// Lines of the log, for refused callers that proved who they are and for others.
	proved, unproved *rate.Limiter
	// sending are turns to send a request, by the uid of the caller's pod.
	sending *turns.Queue[string]

	// mu guards below.
	mu      sync.Mutex
	buckets map[string]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// NewService registers its metrics.
func NewService(o Options) (*Service, error) {
	if o.Authority == nil || o.Reviewer == nil || o.Pods == nil || o.TrustDomain == nil || o.Registry == nil || o.Logger == nil {
		return nil, errors.New("ca: Authority, Reviewer, Pods, TrustDomain, Registry and Logger must be set")
	}
	sending, err := turns.New(turns.Options[string]{Most: maxSending, Share: maxSendingOfPod, Waiting: maxWaiting, Line: maxWaitingOfPod})
	if err != nil {
		return nil, err
	}
	s := &Service{
		o:       o,
		issued:  prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_ca_certificates_issued_total", Help: "Certificates signed."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "fairlead_ca_requests_refused_total", Help: "Requests refused, by code."}, []string{"code"}),
		buckets: map[string]*bucket{}, sending: sending,
		proved: rate.NewLimiter(linesPerSecond, linesAtOnce), unproved: rate.NewLimiter(linesPerSecond, linesAtOnce),
	}
	for _, c := range []prometheus.Collector{s.issued, s.refused} {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Register serves on g.
func (s *Service) Register(g *grpc.Server) { g.RegisterService(&served, s) }

// answer is one call; receive brings what is asked for, once it is known who asks.
func (s *Service) answer(ctx context.Context, receive func(token.Caller) (*api.IstioCertificateRequest, error)) (*api.IstioCertificateResponse, error) {
	response, id, caller, err := s.create(ctx, receive)
	if err != nil {
		s.refused.WithLabelValues(status.Code(err).String()).Inc()
		s.say(ctx, caller, id, err)
		return nil, err
	}
	s.issued.Inc()
	return response, nil
}

// say logs a refusal. Those of callers that proved nothing have lines of their own, so
// that they cannot hide the others'; the metric counts all.
func (s *Service) say(ctx context.Context, caller token.Caller, id mesh.Identity, err error) {
	from := ""
	if p, ok := peer.FromContext(ctx); ok {
		from = p.Addr.String()
	}
	switch {
	case caller == token.Caller{}:
		if s.unproved.Allow() {
			s.o.Logger.Warn("certificate refused", "from", from, "err", err)
		}
	case s.proved.Allow():
		s.o.Logger.Warn("certificate refused", "from", from, "caller", caller.Account(), "pod", caller.Pod, "node", caller.Node, "identity", id.String(), "err", err)
	}
}

func (s *Service) create(ctx context.Context, receive func(token.Caller) (*api.IstioCertificateRequest, error)) (response *api.IstioCertificateResponse, id mesh.Identity, caller token.Caller, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	bearer, err := token.Bearer(md.Get("authorization"))
	if err == nil {
		caller, err = s.o.Reviewer.Review(ctx, bearer)
	}
	if errors.Is(err, token.ErrUnavailable) {
		return nil, id, caller, status.Error(codes.Unavailable, err.Error())
	}
	if err != nil {
		return nil, id, caller, status.Error(codes.Unauthenticated, err.Error())
	}
	if !s.admit(caller) {
		return nil, id, caller, status.Errorf(codes.ResourceExhausted, "more than %d requests a second", perSecond)
	}
	r, err := receive(caller)
	if err != nil {
		return nil, id, caller, err
	}
	if id, err = s.identity(ctx, caller, r); err != nil {
		return nil, id, caller, err
	}
	request, err := parseRequest(r.GetCsr())
	if err != nil {
		return nil, id, caller, status.Error(codes.InvalidArgument, err.Error())
	}
	authority := s.o.Authority()
	if authority == nil {
		return nil, id, caller, status.Error(codes.Unavailable, "the certificate authority has no key yet; try again")
	}
	chain, leaf, err := authority.Sign(request, id, time.Duration(r.GetValidityDuration())*time.Second)
	if err != nil {
		return nil, id, caller, status.Error(codes.InvalidArgument, err.Error())
	}
	s.o.Logger.Info("certificate issued", "identity", id.String(), "caller", caller.Account(), "node", caller.Node,
		"serial", leaf.SerialNumber.Text(16), "until", leaf.NotAfter.UTC().Format(time.RFC3339))
	return &api.IstioCertificateResponse{CertChain: chain}, id, caller, nil
}

// identity is what the caller may have: what it asks for on behalf of a pod of
// its node, or its own.
func (s *Service) identity(ctx context.Context, caller token.Caller, r *api.IstioCertificateRequest) (mesh.Identity, error) {
	own := mesh.Identity{TrustDomain: s.o.TrustDomain(), Namespace: caller.Namespace, ServiceAccount: caller.ServiceAccount}
	id := own
	asked := r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue()
	if asked != "" {
		var err error
		if id, err = mesh.ParseIdentity(asked); err != nil {
			return id, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	refuse := func(why string) (mesh.Identity, error) { return id, status.Error(codes.Unauthenticated, why) }
	switch {
	case asked == "":
	case !slices.Contains(s.o.NodeAccounts, caller.Account()):
		return refuse("service account " + caller.Account() + " may not ask on behalf of others")
	case id.TrustDomain != own.TrustDomain:
		return refuse("trust domain " + id.TrustDomain + " is not this mesh's, " + own.TrustDomain)
	}
	if there, err := s.o.Pods.Exists(ctx, caller); err != nil {
		return id, status.Errorf(codes.Unavailable, "whether the caller's pod exists: %v", err)
	} else if !there {
		return refuse("the caller's pod " + caller.Namespace + "/" + caller.Pod + " does not exist any more")
	}
	if asked == "" {
		return id, nil
	}
	if there, err := s.o.Pods.OnNode(ctx, caller.Node, id.Namespace, id.ServiceAccount); err != nil {
		return id, status.Errorf(codes.Unavailable, "which pods are on node %s: %v", caller.Node, err)
	} else if !there {
		return refuse("no pod of " + id.Namespace + "/" + id.ServiceAccount + " is on node " + caller.Node)
	}
	return id, nil
}

func parseRequest(csr string) (*x509.CertificateRequest, error) {
	if len(csr) > maxCSR {
		return nil, errors.New("certificate request too large")
	}
	block, _ := pem.Decode([]byte(csr))
	if block == nil {
		return nil, errors.New("certificate request is not PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return request, request.CheckSignature()
}

// admit takes from the caller's token bucket.
func (s *Service) admit(caller token.Caller) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, now := caller.Account()+"@"+caller.Node, time.Now()
	b := s.buckets[key]
	if b == nil {
		if len(s.buckets) >= maxCallers {
			clear(s.buckets)
		}
		b = &bucket{tokens: burst, at: now}
		s.buckets[key] = b
	}
	b.tokens = min(burst, b.tokens+now.Sub(b.at).Seconds()*perSecond)
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
