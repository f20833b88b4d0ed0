package identity

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	ca "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
)

const controlPlaneName = "istiod.istio-system.svc"

// service is a certificate service that notes what it is asked.
type service struct {
	ca.UnimplementedIstioCertificateServiceServer
	headers metadata.MD
	request *ca.IstioCertificateRequest
}

func (s *service) CreateCertificate(ctx context.Context, r *ca.IstioCertificateRequest) (*ca.IstioCertificateResponse, error) {
	s.headers, _ = metadata.FromIncomingContext(ctx)
	s.request = r
	return &ca.IstioCertificateResponse{CertChain: []string{"leaf", "root"}}, nil
}

// serveTLS runs s with a self-signed certificate, which it returns in PEM.
func serveTLS(t *testing.T, s *service) (address string, root []byte) {
	t.Helper()
	certificate := identitytest.SelfSigned(controlPlaneName)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{certificate}}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	ca.RegisterIstioCertificateServiceServer(g, s)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().String(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})
}

func TestRequestToTheControlPlane(t *testing.T) {
	s := &service{}
	address, root := serveTLS(t, s)
	_, foreign := serveTLS(t, &service{})
	rootFile, tokenFile := filepath.Join(t.TempDir(), "root.pem"), filepath.Join(t.TempDir(), "token")
	write := func(path string, content []byte) {
		t.Helper()
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(rootFile, root)
	write(tokenFile, []byte("first\n"))
	own := false
	sign := func(serverName string) error {
		conn, err := Dial(address, serverName, rootFile, Token{File: tokenFile, Cluster: "c1"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		client := NewClient(conn)
		if own {
			client = NewOwnClient(conn)
		}
		_, err = client.Sign(ctx, alice, []byte("csr"), time.Hour)
		return err
	}
	if err := sign(controlPlaneName); err != nil {
		t.Fatal(err)
	}
	if got := s.request.Metadata.AsMap()["ImpersonatedIdentity"]; got != alice.String() || s.request.ValidityDuration != 3600 || s.request.Csr != "csr" {
		t.Errorf("request %v", s.request)
	}
	if s.headers.Get("authorization")[0] != "Bearer first" || s.headers.Get("clusterid")[0] != "c1" {
		t.Errorf("headers %v", s.headers)
	}
	// A replaced token is used at once.
	write(tokenFile, []byte("second"))
	if err := sign(controlPlaneName); err != nil || s.headers.Get("authorization")[0] != "Bearer second" {
		t.Errorf("after the token was replaced: %v, %v", err, s.headers)
	}
	own = true
	if err := sign(controlPlaneName); err != nil || s.request.Metadata != nil {
		t.Errorf("asked for its own, it named one: %v, %v", err, s.request.Metadata)
	}
	if err := sign("another.name"); err == nil || !strings.Contains(err.Error(), "another.name") {
		t.Errorf("another server name: %v", err)
	}
	write(rootFile, foreign)
	if err := sign(controlPlaneName); err == nil {
		t.Error("a control plane of another root was trusted with the token")
	}
}
