package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
	api "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

var agent = token.Caller{Namespace: "istio-system", ServiceAccount: "ztunnel", Pod: "ztunnel-n1", PodUID: "1", Node: "n1"}

// reviewer takes a token's text for the caller's service account.
type reviewer map[string]token.Caller

func (r reviewer) Review(_ context.Context, t string) (token.Caller, error) {
	if c, ok := r[t]; ok {
		return c, nil
	}
	return token.Caller{}, errors.New("unknown token")
}

// pods says which accounts run on n1.
type pods struct{ stale bool }

func (p *pods) Exists(context.Context, token.Caller) (bool, error) { return !p.stale, nil }
func (p *pods) OnNode(_ context.Context, node, namespace, account string) (bool, error) {
	return node == "n1" && namespace == "default" && account == "reviews", nil
}

func newService(t *testing.T) (*Service, *pods) {
	t.Helper()
	authority, err := Create(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	p := &pods{}
	s, err := NewService(Options{
		Authority: func() *Authority { return authority }, Pods: p, TrustDomain: func() string { return "cluster.local" }, NodeAccounts: []string{"istio-system/ztunnel"},
		Reviewer: reviewer{"agent": agent, "app": {Namespace: "default", ServiceAccount: "reviews", Pod: "r", PodUID: "2", Node: "n1"}},
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

// ask has the service answer a request that has come.
func ask(ctx context.Context, s *Service, r *api.IstioCertificateRequest) (*api.IstioCertificateResponse, error) {
	return s.answer(ctx, func(token.Caller) (*api.IstioCertificateRequest, error) { return r, nil })
}

func csr(t *testing.T, key any, uris ...string) string {
	t.Helper()
	template := &x509.CertificateRequest{}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestWhoMayHaveWhichIdentity(t *testing.T) {
	const reviews = "spiffe://cluster.local/ns/default/sa/reviews"
	for name, c := range map[string]struct {
		token, impersonate string
		stale              bool
		want               string
		code               codes.Code
	}{
		"an agent for a pod of its node":        {"agent", reviews, false, reviews, codes.OK},
		"an agent for itself":                   {"agent", "", false, "spiffe://cluster.local/ns/istio-system/sa/ztunnel", codes.OK},
		"an app for itself":                     {"app", "", false, reviews, codes.OK},
		"an agent for a pod of another node":    {"agent", "spiffe://cluster.local/ns/default/sa/ratings", false, "", codes.Unauthenticated},
		"an agent for another trust domain":     {"agent", "spiffe://other/ns/default/sa/reviews", false, "", codes.Unauthenticated},
		"an agent whose pod is gone":            {"agent", reviews, true, "", codes.Unauthenticated},
		"an app whose pod is gone":              {"app", "", true, "", codes.Unauthenticated},
		"an app for another, even one like it":  {"app", reviews, false, "", codes.Unauthenticated},
		"an unknown token":                      {"x", "", false, "", codes.Unauthenticated},
		"no token":                              {"", "", false, "", codes.Unauthenticated},
		"something that is no identity of ours": {"agent", "spiffe://cluster.local/x", false, "", codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			s, p := newService(t)
			p.stale = c.stale
			ctx := t.Context()
			if c.token != "" {
				ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("authorization", "Bearer "+c.token))
			}
			request := &api.IstioCertificateRequest{Csr: csr(t, ecKey(t), "spiffe://cluster.local/ns/evil/sa/admin"), ValidityDuration: 3600}
			if c.impersonate != "" {
				request.Metadata, _ = structpb.NewStruct(map[string]any{"ImpersonatedIdentity": c.impersonate})
			}
			response, err := ask(ctx, s, request)
			if status.Code(err) != c.code {
				t.Fatalf("error %v, want %v", err, c.code)
			}
			if err != nil {
				return
			}
			chain := parse(t, strings.Join(response.CertChain, ""))
			if got := chain[0].URIs; len(got) != 1 || got[0].String() != c.want {
				t.Errorf("signed %v, want %s alone", got, c.want)
			}
			if life := time.Until(chain[0].NotAfter); life > time.Hour || life < 59*time.Minute {
				t.Errorf("life %s, want an hour", life)
			}
			root := chain[len(chain)-1]
			pool := x509.NewCertPool()
			pool.AddCert(root)
			if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Errorf("the last of the chain is not its root: %v", err)
			}
			critical := false
			for _, e := range chain[0].Extensions {
				critical = critical || e.Id.String() == "2.5.29.17" && e.Critical
			}
			if !critical || chain[0].IsCA || len(chain[0].Subject.Names) != 0 {
				t.Errorf("SAN critical %v, CA %v, subject %v", critical, chain[0].IsCA, chain[0].Subject)
			}
		})
	}
}

func parse(t *testing.T, text string) (out []*x509.Certificate) {
	t.Helper()
	for b := []byte(text); ; {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			return out
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	s, _ := newService(t)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("authorization", "Bearer app"))
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	large, err := rsa.GenerateKey(rand.Reader, 4104)
	if err != nil {
		t.Fatal(err)
	}
	good := csr(t, ecKey(t))
	for name, text := range map[string]string{
		"empty": "", "not PEM": "x", "huge": strings.Repeat("x", maxCSR+1), "P-224": csr(t, small), "RSA of 4104 bits": csr(t, large),
		"tampered": strings.Replace(good, "A", "B", 1),
	} {
		if _, err := ask(ctx, s, &api.IstioCertificateRequest{Csr: text}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLifeIsBounded(t *testing.T) {
	a, err := Create(t.TempDir(), "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	for asked, want := range map[time.Duration]time.Duration{0: DefaultTTL, -time.Hour: DefaultTTL, 200 * 24 * time.Hour: MaxTTL, time.Minute: time.Minute} {
		_, leaf, err := a.Sign(&x509.CertificateRequest{PublicKey: ecKey(t).Public()}, mesh.Identity{TrustDomain: "td", Namespace: "n", ServiceAccount: "s"}, asked)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Until(leaf.NotAfter).Round(time.Minute); got != want {
			t.Errorf("asked for %s, got %s, want %s", asked, got, want)
		}
	}
}

func TestRootIsKeptAndItsKeyIsPrivate(t *testing.T) {
	dir := t.TempDir()
	first, err := Create(dir, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	again, err := Create(dir, "cluster.local")
	if err != nil || string(again.RootsPEM()) != string(first.RootsPEM()) {
		t.Errorf("another root after a restart: %v", err)
	}
	key := filepath.Join(dir, "root-key.pem")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "cluster.local"); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("a key that others may read was taken: %v", err)
	}
}

// An intermediate is plugged in, and two roots are trusted while one replaces
// the other.
func TestPluggedInAuthority(t *testing.T) {
	dir := t.TempDir()
	rootDir, otherDir := filepath.Join(dir, "root"), filepath.Join(dir, "other")
	root, err := Create(rootDir, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	other, err := Create(otherDir, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	key := ecKey(t)
	intermediate, err := root.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	files := Files{
		Cert: write("ca-cert.pem", encode(intermediate)), Key: write("ca-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})),
		Chain: write("cert-chain.pem", append(encode(intermediate), root.RootsPEM()...)), Roots: write("root-cert.pem", append(root.RootsPEM(), other.RootsPEM()...)),
	}
	a, err := Load(files)
	if err != nil {
		t.Fatal(err)
	}
	chain, _, err := a.Sign(&x509.CertificateRequest{PublicKey: ecKey(t).Public()}, mesh.Identity{TrustDomain: "td", Namespace: "n", ServiceAccount: "s"}, time.Minute)
	if err != nil || len(chain) != 3 || len(parse(t, chain[2])) != 2 {
		t.Fatalf("%d certificates, want leaf, intermediate and, in one, two roots: %v", len(chain), err)
	}
	files.Key = filepath.Join(otherDir, "root-key.pem")
	if _, err := Load(files); err == nil || !strings.Contains(err.Error(), "the key is not that of") {
		t.Errorf("another key: %v", err)
	}
	files.Key, files.Roots = filepath.Join(dir, "ca-key.pem"), filepath.Join(otherDir, "root-cert.pem")
	files.Chain = ""
	if _, err := Load(files); err == nil {
		t.Error("an authority that chains to none of its roots was taken")
	}
}

func TestOneCallerCannotAskWithoutEnd(t *testing.T) {
	s, _ := newService(t)
	granted := 0
	for range burst + 200 {
		if s.admit(agent) {
			granted++
		}
	}
	if granted < burst || granted > burst+100 {
		t.Errorf("%d requests admitted at once, want about %d", granted, burst)
	}
	if !s.admit(token.Caller{Namespace: "default", ServiceAccount: "reviews", Node: "n2"}) {
		t.Error("another caller suffers for it")
	}
}
