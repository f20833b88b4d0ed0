// Package token makes the tokens by which a lab's node agents prove who they are
// to its control plane: JWTs of the shape that Kubernetes projects into pods.
//
// It is part of the lab and only the lab imports it.
package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const issuer = "fairlead-lab"

// Lifetime of a token; whoever writes them renews them well before.
const Lifetime = 12 * time.Hour

// Subject is whom a token is for.
type Subject struct {
	Namespace, ServiceAccount, ServiceAccountUID string
	Pod, PodUID, Node                            string
}

// Signer signs tokens with a key of its own, which is never written down.
type Signer struct{ key *ecdsa.PrivateKey }

// NewSigner makes a key.
func NewSigner() (*Signer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the key for tokens: %w", err)
	}
	return &Signer{key: key}, nil
}

// PublicKey is what verifies the tokens, as PEM.
func (s *Signer) PublicKey() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encode the key for tokens: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid,omitempty"`
}

type kubernetes struct {
	Namespace      string `json:"namespace"`
	ServiceAccount object `json:"serviceaccount"`
	Pod            object `json:"pod"`
	Node           object `json:"node"`
}

type claims struct {
	jwt.RegisteredClaims
	Kubernetes kubernetes `json:"kubernetes.io"`
}

// Sign makes a token that holds from now on for its Lifetime.
func (s *Signer) Sign(sub Subject, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodES256, claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Audience: jwt.ClaimStrings{token.Audience},
			Subject:  "system:serviceaccount:" + sub.Namespace + ":" + sub.ServiceAccount,
			IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now.Add(-time.Minute)), ExpiresAt: jwt.NewNumericDate(now.Add(Lifetime)),
		},
		Kubernetes: kubernetes{
			Namespace: sub.Namespace, ServiceAccount: object{sub.ServiceAccount, sub.ServiceAccountUID},
			Pod: object{sub.Pod, sub.PodUID}, Node: object{Name: sub.Node},
		},
	})
	text, err := t.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign the token of %s: %w", sub.Pod, err)
	}
	return text, nil
}

// Write puts a new token into a file in one step.
func (s *Signer) Write(path string, sub Subject, now time.Time) error {
	text, err := s.Sign(sub, now)
	if err != nil {
		return err
	}
	next := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".next")
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the token of %s: %w", sub.Pod, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write the token of %s: %w", sub.Pod, err)
	}
	return nil
}
