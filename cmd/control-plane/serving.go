package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

// servingLife is that of the control plane's own certificate.
const servingLife = 24 * time.Hour

// servingCertificate is signed by the mesh's CA, and made anew at half-life and when the
// CA is another.
type servingCertificate struct {
	authority authority
	names     []string
	ips       []net.IP

	// mu guards below.
	mu    sync.Mutex
	cert  *tls.Certificate
	by    *ca.Authority // who signed it
	renew time.Time
}

func newServingCertificate(authority authority, names []string) (*servingCertificate, error) {
	s := &servingCertificate{authority: authority, names: names}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("own addresses: %w", err)
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			s.ips = append(s.ips, n.IP)
		}
	}
	return s, nil
}

func (s *servingCertificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.get, NextProtos: []string{"h2"}}
}

func (s *servingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	by := s.authority.Current()
	if by == nil {
		return nil, errNoAuthority
	}
	if s.cert != nil && s.by == by && time.Now().Before(s.renew) {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, leaf, err := by.SignServer(key.Public(), s.names, s.ips, servingLife)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
	s.by, s.renew = by, time.Now().Add(servingLife/2)
	return s.cert, nil
}
