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

// servingCertificate is signed by the mesh's CA and made anew at half-life.
type servingCertificate struct {
	authority *ca.Authority
	names     []string
	ips       []net.IP

	// mu guards below.
	mu    sync.Mutex
	cert  *tls.Certificate
	renew time.Time
}

func newServingCertificate(authority *ca.Authority, names []string) (*servingCertificate, error) {
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
	_, err = s.get(nil)
	return s, err
}

func (s *servingCertificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.get, NextProtos: []string{"h2"}}
}

func (s *servingCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cert != nil && time.Now().Before(s.renew) {
		return s.cert, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, leaf, err := s.authority.SignServer(key.Public(), s.names, s.ips, servingLife)
	if err != nil {
		return nil, err
	}
	s.cert = &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
	s.renew = time.Now().Add(servingLife / 2)
	return s.cert, nil
}
