package kube

import (
	"context"
	"time"
)

// AccountToken asks for a token of a service account that is bound to no pod: it outlives
// the pod of the one who asks.
func (c *Client) AccountToken(ctx context.Context, namespace, name string, life time.Duration) (token string, expires time.Time, err error) {
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
