package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func keys(t *testing.T, public ...crypto.PublicKey) (*Keys, error) {
	t.Helper()
	var b []byte
	for _, p := range public {
		der, err := x509.MarshalPKIXPublicKey(p)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...)
	}
	path := filepath.Join(t.TempDir(), "keys.pem")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return ReadKeys(path)
}

func TestReview(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	other, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	k, err := keys(t, key.Public(), rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := func() jwt.MapClaims {
		return jwt.MapClaims{
			"iss": "x", "aud": []string{Audience}, "sub": "system:serviceaccount:istio-system:ztunnel", "exp": time.Now().Add(time.Hour).Unix(),
			"kubernetes.io": map[string]any{
				"namespace": "istio-system", "serviceaccount": map[string]any{"name": "ztunnel", "uid": "1"},
				"pod": map[string]any{"name": "ztunnel-n1", "uid": "2"}, "node": map[string]any{"name": "n1"},
			},
		}
	}
	with := func(name string, value any) jwt.MapClaims {
		c := good()
		c[name] = value
		return c
	}
	unbound := good()
	delete(unbound["kubernetes.io"].(map[string]any), "node")
	immortal := good()
	delete(immortal, "exp")
	for name, c := range map[string]struct {
		method jwt.SigningMethod
		key    any
		claims jwt.MapClaims
		ok     bool
	}{
		"EC":                         {jwt.SigningMethodES256, key, good(), true},
		"RSA":                        {jwt.SigningMethodRS256, rsaKey, good(), true},
		"another key":                {jwt.SigningMethodES256, other, good(), false},
		"another audience":           {jwt.SigningMethodES256, key, with("aud", "api"), false},
		"expired":                    {jwt.SigningMethodES256, key, with("exp", time.Now().Add(-time.Hour).Unix()), false},
		"without expiry":             {jwt.SigningMethodES256, key, immortal, false},
		"subject of another account": {jwt.SigningMethodES256, key, with("sub", "system:serviceaccount:a:b"), false},
		"not bound to a node":        {jwt.SigningMethodES256, key, unbound, false},
		"not signed":                 {jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good(), false},
		"symmetric":                  {jwt.SigningMethodHS256, []byte("public"), good(), false},
	} {
		t.Run(name, func(t *testing.T) {
			signed, err := jwt.NewWithClaims(c.method, c.claims).SignedString(c.key)
			if err != nil {
				t.Fatal(err)
			}
			caller, err := k.Review(t.Context(), signed)
			if (err == nil) != c.ok {
				t.Fatalf("caller %v, error %v", caller, err)
			}
			if want := (Caller{"istio-system", "ztunnel", "ztunnel-n1", "2", "n1"}); c.ok && caller != want {
				t.Errorf("caller %v, want %v", caller, want)
			}
		})
	}
	if _, err := k.Review(t.Context(), strings.Repeat("x", maxToken+1)); err == nil {
		t.Error("a huge token was parsed")
	}
}

func TestWeakKeysAreRefused(t *testing.T) {
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err == nil {
		if _, err := keys(t, weak.Public()); err == nil {
			t.Error("an RSA key of 1024 bits was taken")
		}
	}
	if _, err := keys(t); err == nil {
		t.Error("a file without keys was taken")
	}
}

func TestBearer(t *testing.T) {
	if got, err := Bearer([]string{"Basic x", "bearer  abc "}); got != "abc" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Bearer([]string{"Basic x"}); err == nil {
		t.Error("found a token")
	}
}
