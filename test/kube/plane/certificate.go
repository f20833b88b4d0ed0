package plane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"
	ca "istio.io/api/security/v1alpha1"
)

// request is a certificate request with a key of its own.
func request(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}))
}

// Sign asks for a certificate of account, as "namespace/name", or for the caller's own.
func Sign(t testing.TB, conn grpc.ClientConnInterface, account string) (string, error) {
	t.Helper()
	r := &ca.IstioCertificateRequest{Csr: request(t), ValidityDuration: 3600}
	if account != "" {
		namespace, name, _ := strings.Cut(account, "/")
		r.Metadata, _ = structpb.NewStruct(map[string]any{"ImpersonatedIdentity": "spiffe://cluster.local/ns/" + namespace + "/sa/" + name})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	response, err := ca.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, r)
	if err != nil {
		return "", err
	}
	block, _ := pem.Decode([]byte(response.GetCertChain()[0]))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf.URIs[0].String(), nil
}
