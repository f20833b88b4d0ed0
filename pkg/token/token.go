// Package token tells who calls the control plane. A [Reviewer] turns a bearer
// token into a [Caller]: [Keys] does it for the tokens of a directory's cluster,
// by public keys; pkg/token/tokenreview asks a Kubernetes API server.
//
// pkg/control and pkg/ca ask it; commands construct it.
package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Audience is who the tokens are for: Istio's CA and discovery service.
const Audience = "istio-ca"

// maxToken bounds what is parsed, in bytes.
const maxToken = 16 << 10

// Caller is who a token proves: a service account, in a pod, on a node.
type Caller struct {
	Namespace, ServiceAccount, Pod, PodUID, Node string
}

// Account is "namespace/service account".
func (c Caller) Account() string { return c.Namespace + "/" + c.ServiceAccount }

// ErrUnavailable: whether the token proves anything could not be found out now; the
// caller should try again.
var ErrUnavailable = errors.New("tokens cannot be looked into now")

// UnboundError is of a token that proves a service account and no pod: who has it is a
// person's tool, and may look at most.
type UnboundError struct {
	Namespace, ServiceAccount string
}

func (e *UnboundError) Error() string {
	return fmt.Sprintf("token: that of %s/%s is bound to no pod; mount it as a projected serviceAccountToken, or make it with --bound-object-kind=Pod", e.Namespace, e.ServiceAccount)
}

// Reviewer proves tokens.
type Reviewer interface {
	// Review returns the token's caller, or an error that says why it proves nothing,
	// such as an [UnboundError], or [ErrUnavailable].
	Review(ctx context.Context, token string) (Caller, error)
}

// Bearer takes the token out of the values of an authorization header.
func Bearer(authorization []string) (string, error) {
	for _, a := range authorization {
		if scheme, t, ok := strings.Cut(a, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(t), nil
		}
	}
	return "", errors.New("no bearer token")
}

// Keys reviews JSON Web Tokens in the shape of Kubernetes' projected service
// account tokens, bound to a pod and a node, signed by one of its keys.
type Keys struct {
	keys   []crypto.PublicKey
	parser *jwt.Parser
}

var _ Reviewer = (*Keys)(nil)

// ReadKeys reads one or more public keys in PEM (PKIX: EC P-256 or RSA of 2048
// bits and more) from a file.
func ReadKeys(path string) (*Keys, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("token keys: %w", err)
	}
	k := &Keys{parser: jwt.NewParser(jwt.WithValidMethods([]string{"ES256", "RS256"}), jwt.WithAudience(Audience), jwt.WithExpirationRequired())}
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("token keys in %s: %w", path, err)
		}
		switch key := key.(type) {
		case *ecdsa.PublicKey:
		case *rsa.PublicKey:
			if key.N.BitLen() < 2048 {
				return nil, fmt.Errorf("token keys in %s: an RSA key of %d bits; at least 2048 are needed", path, key.N.BitLen())
			}
		default:
			return nil, fmt.Errorf("token keys in %s: a key of type %T; EC P-256 and RSA are supported", path, key)
		}
		k.keys = append(k.keys, key)
	}
	if len(k.keys) == 0 {
		return nil, fmt.Errorf("token keys: %s holds no public key in PEM", path)
	}
	return k, nil
}

// claims are those of a projected token.
type claims struct {
	jwt.RegisteredClaims
	Kubernetes struct {
		Namespace      string `json:"namespace"`
		ServiceAccount object `json:"serviceaccount"`
		Pod            object `json:"pod"`
		Node           object `json:"node"`
	} `json:"kubernetes.io"`
}

type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Review implements [Reviewer].
func (k *Keys) Review(_ context.Context, token string) (Caller, error) {
	if len(token) > maxToken {
		return Caller{}, fmt.Errorf("token of %d bytes", len(token))
	}
	var c claims
	_, err := k.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		set := jwt.VerificationKeySet{}
		for _, key := range k.keys {
			_, ec := key.(*ecdsa.PublicKey)
			if ec == strings.HasPrefix(t.Method.Alg(), "ES") {
				set.Keys = append(set.Keys, key)
			}
		}
		return set, nil
	})
	if err != nil {
		return Caller{}, fmt.Errorf("token: %w", err)
	}
	kube := c.Kubernetes
	caller := Caller{
		Namespace: kube.Namespace, ServiceAccount: kube.ServiceAccount.Name,
		Pod: kube.Pod.Name, PodUID: kube.Pod.UID, Node: kube.Node.Name,
	}
	if slices.Contains([]string{caller.Namespace, caller.ServiceAccount, caller.Pod, caller.PodUID, caller.Node}, "") {
		return Caller{}, errors.New("token: not bound to a pod and a node")
	}
	if want := "system:serviceaccount:" + caller.Namespace + ":" + caller.ServiceAccount; c.Subject != want {
		return Caller{}, fmt.Errorf("token: subject %q, want %q", c.Subject, want)
	}
	return caller, nil
}
