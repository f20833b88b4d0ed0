package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// OwnToken asks for a token of the client's own service account that is bound to no
// pod: it outlives the pod of the one who asks.
func (c *Client) OwnToken(ctx context.Context, life time.Duration) (token string, expires time.Time, err error) {
	own, err := c.token()
	if err != nil {
		return "", time.Time{}, err
	}
	namespace, name, err := account(own)
	if err != nil {
		return "", time.Time{}, err
	}
	request := map[string]any{"spec": map[string]any{"expirationSeconds": int(life.Seconds())}}
	var made struct {
		Status struct {
			Token               string    `json:"token"`
			ExpirationTimestamp time.Time `json:"expirationTimestamp"`
		} `json:"status"`
	}
	if err := c.Create(ctx, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", request, &made); err != nil {
		return "", time.Time{}, err
	}
	return made.Status.Token, made.Status.ExpirationTimestamp, nil
}

// account reads whose a token is; that it is true is the API's affair.
func account(token string) (namespace, name string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", "", errors.New("the token for the Kubernetes API is none of a service account")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", "", fmt.Errorf("token for the Kubernetes API: %w", err)
	}
	var claims struct {
		Subject string `json:"sub"`
	}
	if err := json.Unmarshal(b, &claims); err != nil {
		return "", "", fmt.Errorf("token for the Kubernetes API: %w", err)
	}
	whose, ok := strings.CutPrefix(claims.Subject, "system:serviceaccount:")
	namespace, name, found := strings.Cut(whose, ":")
	if !ok || !found {
		return "", "", fmt.Errorf("the token for the Kubernetes API is of %q, no service account", claims.Subject)
	}
	return namespace, name, nil
}
