package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Forward opens a port on loopback that leads to a pod's, until ctx ends. It
// returns once the port takes connections.
func (c *Client) Forward(ctx context.Context, namespace, pod string, port int) (address string, err error) {
	base, _, err := rest.DefaultServerUrlFor(c.Config)
	if err != nil {
		return "", fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	target := *base
	target.Path = strings.TrimSuffix(base.Path, "/") + fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/portforward", namespace, pod)
	dialer, err := forwardDialer(c.Config, &target)
	if err != nil {
		return "", fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	ready := make(chan struct{})
	forwarder, err := portforward.NewOnAddressesForStreaming(dialer, []string{"127.0.0.1"}, []string{fmt.Sprintf("0:%d", port)}, ctx.Done(), ready, io.Discard, io.Discard)
	if err != nil {
		return "", fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	failed := make(chan error, 1)
	go func() { failed <- forwarder.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-failed:
		return "", fmt.Errorf("forward to port %d of pod %s/%s: %w", port, namespace, pod, err)
	case <-ctx.Done():
		return "", ctx.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return "", fmt.Errorf("forward to pod %s/%s: %w", namespace, pod, err)
	}
	return fmt.Sprintf("127.0.0.1:%d", ports[0].Local), nil
}

// forwardDialer is SPDY inside a websocket, and SPDY alone where the API server or a
// proxy before it does not take that, as kubectl does it.
func forwardDialer(config *rest.Config, target *url.URL) (httpstream.Dialer, error) {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return nil, err
	}
	plain := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, target)
	tunnelled, err := portforward.NewSPDYOverWebsocketDialerForStreaming(target, config)
	if err != nil {
		return nil, err
	}
	return portforward.NewFallbackDialerForStreaming(tunnelled, plain, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// maxAnswer bounds what a pod's admin page may answer.
const maxAnswer = 256 << 20

// Fetch asks a page of a pod's port that listens on loopback there.
func (c *Client) Fetch(ctx context.Context, method, namespace, pod string, port int, path string) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	address, err := c.Forward(ctx, namespace, pod, port)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{}).Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask pod %s/%s for %s: %w", namespace, pod, path, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("read the answer of pod %s/%s to %s: %w", namespace, pod, path, err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("pod %s/%s answers %s to %s: %s", namespace, pod, answer.Status, path, strings.TrimSpace(string(body)))
	}
	return body, nil
}
