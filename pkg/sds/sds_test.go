package sds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

var waypoint = mesh.Identity{TrustDomain: "cluster.local", Namespace: "shop", ServiceAccount: "waypoint"}

// serve runs a server and returns a connection to its socket.
func serve(t *testing.T, o Options) *grpc.ClientConn {
	t.Helper()
	o.Socket, o.Identity, o.Logger = filepath.Join(t.TempDir(), "run", "sds"), waypoint, slog.New(slog.DiscardHandler)
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(o.Socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := grpc.NewClient("unix:"+o.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(o.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is left: %v", err)
		}
	})
	return conn
}

func certificates(t *testing.T, ca *identitytest.CA) *identity.Manager {
	t.Helper()
	m, err := identity.NewManager(identity.Options{CA: ca, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	m.Acquire(waypoint)
	t.Cleanup(m.Close)
	return m
}

func unpack(t *testing.T, b []byte) *tlsv3.Secret {
	t.Helper()
	var s tlsv3.Secret
	if err := proto.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	return &s
}

// leaf is a certificate secret's, of which the key must be.
func leaf(t *testing.T, s *tlsv3.Secret) *x509.Certificate {
	t.Helper()
	c := s.GetTlsCertificate()
	pair, err := tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes())
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// The proxy gets certificate and roots that fit, and each new one as it comes.
func TestSecretsAndTheirRotation(t *testing.T) {
	ca := identitytest.New()
	ca.TTL = 2 * time.Second // renewed after one
	conn := serve(t, Options{Certificates: certificates(t, ca)})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := secretv3.NewSecretDiscoveryServiceClient(conn).StreamSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DiscoveryRequest{TypeUrl: SecretType, ResourceNames: []string{"ROOTCA", "default", "unknown"}}); err != nil {
		t.Fatal(err)
	}
	r, err := stream.Recv()
	if err != nil || len(r.Resources) != 2 {
		t.Fatalf("%v, %v", r, err)
	}
	first := leaf(t, unpack(t, r.Resources[1].Value))
	if len(first.URIs) != 1 || first.URIs[0].String() != waypoint.String() {
		t.Errorf("certificate of %v", first.URIs)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(unpack(t, r.Resources[0].Value).GetValidationContext().GetTrustedCa().GetInlineBytes())
	if _, err := first.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		t.Error(err)
	}
	r, err = stream.Recv()
	if err != nil || len(r.Resources) != 1 || leaf(t, unpack(t, r.Resources[0].Value)).Equal(first) {
		t.Errorf("after a renewal: %v, %v", r, err)
	}
}

// The other form of the protocol, and a CA that has no answer at first.
func TestSecretsWaitForTheCA(t *testing.T) {
	ca := identitytest.New()
	ca.Lock()
	ca.Fail = errors.New("not now")
	ca.Unlock()
	conn := serve(t, Options{Certificates: certificates(t, ca)})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := secretv3.NewSecretDiscoveryServiceClient(conn).DeltaSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: SecretType, ResourceNamesSubscribe: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	ca.Lock()
	ca.Fail = nil
	ca.Unlock()
	r, err := stream.Recv()
	if err != nil || len(r.Resources) != 1 || r.Resources[0].Name != "default" || r.Resources[0].Version == "" {
		t.Fatalf("%v, %v", r, err)
	}
	leaf(t, unpack(t, r.Resources[0].Resource.Value))
}

// plane is a control plane that answers each request with its subscription.
type plane struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	mu     sync.Mutex
	tokens []string
}

func (p *plane) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	p.mu.Lock()
	p.tokens = append(p.tokens, md.Get("authorization")...)
	p.mu.Unlock()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Aborted, "that was all")
		} else if err != nil {
			return err
		}
		if err := stream.Send(&discovery.DeltaDiscoveryResponse{TypeUrl: r.TypeUrl, RemovedResources: r.ResourceNamesSubscribe}); err != nil {
			return err
		}
	}
}

type bearer struct{ file string }

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	t, err := os.ReadFile(b.file)
	return map[string]string{"authorization": "Bearer " + string(t)}, err
}

func (bearer) RequireTransportSecurity() bool { return false }

// Discovery streams go to the control plane with the token of the moment, and its
// answers and errors come back.
func TestDiscoveryIsRelayedWithTheToken(t *testing.T) {
	p := &plane{}
	g := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(g, p)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	token := bearer{filepath.Join(t.TempDir(), "token")}
	up, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(token))
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	conn := serve(t, Options{Certificates: certificates(t, identitytest.New()), ControlPlane: up})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, secret := range []string{"one", "two"} {
		if err := os.WriteFile(token.file, []byte(secret), 0o600); err != nil {
			t.Fatal(err)
		}
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", strings.Repeat("b", 3<<20)} { // within what the test's own client takes
			if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "x"}, TypeUrl: "t", ResourceNamesSubscribe: []string{name}}); err != nil {
				t.Fatal(err)
			}
			r, err := stream.Recv()
			if err != nil || r.TypeUrl != "t" || len(r.RemovedResources) != 1 || r.RemovedResources[0] != name {
				t.Fatalf("%.100v, %v", r, err)
			}
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "that was all") {
			t.Errorf("the control plane's own error came as %v", err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := strings.Join(p.tokens, ", "); got != "Bearer one, Bearer two" {
		t.Errorf("tokens: %s", got)
	}
}

func TestBootstrap(t *testing.T) {
	b := Bootstrap{NodeID: "waypoint~1~p.n~x", Socket: "/run/sds", Admin: netip.MustParseAddrPort("127.0.0.1:15000"),
		Metadata: map[string]any{"NAME": "p"}, Readiness: netip.MustParseAddrPort("0.0.0.0:15021")}
	text, err := b.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var parsed map[string]any
	if err := json.Unmarshal(text, &parsed); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"sds-grpc"`, `"xds-grpc"`, `"/run/sds"`, `DELTA_GRPC`, `internal_listener`, `"/healthz/ready"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing", want)
		}
	}
	b.Admin = netip.MustParseAddrPort("0.0.0.0:15000")
	if _, err := b.JSON(); err == nil {
		t.Error("an admin page for everybody was taken")
	}
}
