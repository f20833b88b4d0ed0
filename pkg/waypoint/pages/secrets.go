package pages

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Secret is a certificate with what it chains to, or the roots that others must chain
// to. Keys are no part of it.
type Secret struct {
	Name  string
	Chain []*x509.Certificate
	Roots []*x509.Certificate
	// Waiting: there is none yet.
	Waiting bool
}

func (p *Pages) all() []Secret {
	if p.o.Secrets == nil {
		return nil
	}
	return p.o.Secrets()
}

// redacted stands for a key, as with Envoy.
const redacted = "[redacted]"

// secretsDump is the section of certificates; its keys are redacted.
func (p *Pages) secretsDump() (proto.Message, error) {
	d := &adminv3.SecretsConfigDump{}
	for _, s := range p.all() {
		secret := &tlsv3.Secret{Name: s.Name}
		if s.Roots != nil {
			secret.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(encode(s.Roots))}}
		} else {
			secret.Type = &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
				CertificateChain: inline(encode(s.Chain)), PrivateKey: inline([]byte(redacted)),
			}}
		}
		a, err := anypb.New(secret)
		if err != nil {
			return nil, err
		}
		one := &adminv3.SecretsConfigDump_DynamicSecret{Name: s.Name, Secret: a}
		if s.Waiting {
			d.DynamicWarmingSecrets = append(d.DynamicWarmingSecrets, one)
			continue
		}
		if len(s.Chain) > 0 {
			one.LastUpdated = timestamppb.New(s.Chain[0].NotBefore)
		}
		d.DynamicActiveSecrets = append(d.DynamicActiveSecrets, one)
	}
	return d, nil
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

func encode(all []*x509.Certificate) (out []byte) {
	for _, c := range all {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return out
}

// certs is Envoy's /certs.
func (p *Pages) certs(w http.ResponseWriter, _ *http.Request) {
	out := &adminv3.Certificates{}
	one := &adminv3.Certificate{}
	for _, s := range p.all() {
		for _, c := range s.Roots {
			one.CaCert = append(one.CaCert, details(c))
		}
		for _, c := range s.Chain {
			one.CertChain = append(one.CertChain, details(c))
		}
	}
	if len(one.CaCert)+len(one.CertChain) > 0 {
		out.Certificates = append(out.Certificates, one)
	}
	message(w, out)
}

func details(c *x509.Certificate) *adminv3.CertificateDetails {
	d := &adminv3.CertificateDetails{
		Path: "<inline>", SerialNumber: hex.EncodeToString(c.SerialNumber.Bytes()),
		DaysUntilExpiration: uint64(max(time.Until(c.NotAfter)/(24*time.Hour), 0)), //nolint:gosec // not negative
		ValidFrom:           timestamppb.New(c.NotBefore), ExpirationTime: timestamppb.New(c.NotAfter),
	}
	for _, u := range c.URIs {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_Uri{Uri: u.String()}})
	}
	for _, n := range c.DNSNames {
		d.SubjectAltNames = append(d.SubjectAltNames, &adminv3.SubjectAlternateName{Name: &adminv3.SubjectAlternateName_Dns{Dns: n}})
	}
	return d
}

func seconds(d time.Duration) *durationpb.Duration {
	return durationpb.New(d.Truncate(time.Second))
}
