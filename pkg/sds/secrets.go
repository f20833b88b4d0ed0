package sds

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tls "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// SecretType is the one type that is served.
const SecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// The secrets, by Istio's names: the pod's certificate with its key, and what it
// trusts.
const (
	certificateName = "default"
	rootsName       = "ROOTCA"
)

// Certificates is where secrets come from.
type Certificates interface {
	// Get waits, for a bounded time, for a first certificate.
	Get(ctx context.Context, id mesh.Identity) (*identity.Certificate, error)
	RootsPEM() []byte
	// Changed is closed when there is another certificate.
	Changed() <-chan struct{}
}

var _ Certificates = (*identity.Manager)(nil)

// secret is one secret as the wire has it. The version is its content's hash.
type secret struct {
	name, version string
	packed        *anypb.Any
}

func newSecret(s *tls.Secret) (secret, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	if err != nil {
		return secret{}, fmt.Errorf("secret %s: %w", s.GetName(), err)
	}
	sum := sha256.Sum256(b)
	return secret{s.GetName(), base64.RawURLEncoding.EncodeToString(sum[:12]), &anypb.Any{TypeUrl: SecretType, Value: b}}, nil
}

// secrets are those of the names that exist, in the order of names.
func (s *Server) secrets(ctx context.Context, names []string) (found []secret, err error) {
	for _, name := range names {
		var out *tls.Secret
		switch name {
		case certificateName:
			cert, err := s.o.Certificates.Get(ctx, s.o.Identity)
			if err != nil {
				return nil, err
			}
			key, err := cert.KeyPEM()
			if err != nil {
				return nil, err
			}
			out = &tls.Secret{Name: name, Type: &tls.Secret_TlsCertificate{TlsCertificate: &tls.TlsCertificate{
				CertificateChain: inline(cert.ChainPEM()), PrivateKey: inline(key),
			}}}
		case rootsName:
			// The roots come with the certificate, unless a file has them.
			if _, err := s.o.Certificates.Get(ctx, s.o.Identity); err != nil && len(s.o.Certificates.RootsPEM()) == 0 {
				return nil, err
			}
			out = &tls.Secret{Name: name, Type: &tls.Secret_ValidationContext{ValidationContext: &tls.CertificateValidationContext{
				TrustedCa: inline(s.o.Certificates.RootsPEM()),
			}}}
		default:
			continue
		}
		one, err := newSecret(out)
		if err != nil {
			return nil, err
		}
		found = append(found, one)
	}
	return found, nil
}

func inline(b []byte) *core.DataSource {
	return &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: b}}
}

// unknown are the names that no secret has.
func unknown(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == certificateName || name == rootsName })
}
