package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"k8s.io/client-go/rest"
)

// maxLog bounds what is read of a pod's log.
const maxLog = 32 << 20

// Logs are the last lines of a pod's only container.
func (c *Client) Logs(ctx context.Context, namespace, pod string, tail int) ([]string, error) {
	base, _, err := rest.DefaultServerUrlFor(c.Config)
	if err != nil {
		return nil, fmt.Errorf("log of pod %s/%s: %w", namespace, pod, err)
	}
	client, err := rest.HTTPClientFor(c.Config)
	if err != nil {
		return nil, fmt.Errorf("log of pod %s/%s: %w", namespace, pod, err)
	}
	target := *base
	target.Path = strings.TrimSuffix(base.Path, "/") + fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/log", namespace, pod)
	target.RawQuery = fmt.Sprintf("tailLines=%d", tail)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("log of pod %s/%s: %w", namespace, pod, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxLog))
	if err != nil {
		return nil, fmt.Errorf("log of pod %s/%s: %w", namespace, pod, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("log of pod %s/%s: %s: %s", namespace, pod, answer.Status, strings.TrimSpace(string(text)))
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}
