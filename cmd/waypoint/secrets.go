package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
)

// The names that configuration uses for what the waypoint itself has.
const (
	secretSelf  = "default"
	secretRoots = "ROOTCA"
)

// secrets are the waypoint's own certificate and the mesh's roots.
type secrets struct {
	certificates *identity.Manager
	self         mesh.Identity
}

var _ cluster.Secrets = secrets{}

// secretTimeout bounds the wait for a first certificate in a handshake.
const secretTimeout = 10 * time.Second

// Certificate implements [cluster.Secrets].
func (s secrets) Certificate(name string) (*tls.Certificate, error) {
	if name != secretSelf {
		return nil, fmt.Errorf("there is no certificate %q here: only %q", name, secretSelf)
	}
	ctx, cancel := context.WithTimeout(context.Background(), secretTimeout)
	defer cancel()
	c, err := s.certificates.Get(ctx, s.self)
	if err != nil {
		return nil, err
	}
	return &c.TLS, nil
}

// Roots implements [cluster.Secrets].
func (s secrets) Roots(name string) (*x509.CertPool, error) {
	if name != secretRoots {
		return nil, fmt.Errorf("there are no roots %q here: only %q", name, secretRoots)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(s.certificates.RootsPEM()) {
		return nil, errors.New("the mesh's roots are not here yet")
	}
	return pool, nil
}

// awaitCertificate keeps the waypoint unready until it can prove who it is.
func awaitCertificate(ctx context.Context, m *identity.Manager, self mesh.Identity, ready *admin.Readiness, log *slog.Logger) error {
	done := ready.Wait("a certificate")
	for {
		changed := m.Changed()
		_, err := m.Get(ctx, self)
		if err == nil {
			done()
			<-ctx.Done()
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		log.Warn("no certificate yet", "identity", self.String(), "err", err)
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}
