package secret

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

// The keys of a Secret: Istio's, and those of cert-manager.
const (
	certKey, keyKey, chainKey, rootsKey = "ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"

	tlsRootsKey = "ca.crt"
)

// authority is what a Secret holds.
func authority(s *corev1.Secret) (*ca.Authority, error) {
	m := ca.Material{Cert: s.Data[certKey], Key: s.Data[keyKey], Chain: s.Data[chainKey], Roots: s.Data[rootsKey]}
	if len(m.Cert) == 0 && len(s.Data[corev1.TLSCertKey]) > 0 {
		// tls.crt is the certificate and what is above it.
		m = ca.Material{Cert: s.Data[corev1.TLSCertKey], Key: s.Data[corev1.TLSPrivateKeyKey], Chain: s.Data[corev1.TLSCertKey], Roots: s.Data[tlsRootsKey]}
	}
	return ca.Parse(m)
}
