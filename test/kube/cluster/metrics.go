package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// metricsAPI has the API server ask the server of the metrics API, which runs beside it.
const metricsAPI = `
apiVersion: v1
kind: Service
metadata: {name: metrics-server, namespace: kube-system}
spec: {ports: [{name: https, port: 443, targetPort: 4443}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: metrics-server, namespace: kube-system, labels: {kubernetes.io/service-name: metrics-server}}
addressType: IPv4
ports: [{name: https, port: 4443}]
endpoints: [{addresses: [$HUB]}]
---
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {name: v1beta1.metrics.k8s.io}
spec: {group: metrics.k8s.io, version: v1beta1, service: {name: metrics-server, namespace: kube-system}, insecureSkipTLSVerify: true, groupPriorityMinimum: 100, versionPriority: 100}
`

// Metrics gives a cluster with nodes the metrics API (Kubernetes' metrics-server), by which a
// HorizontalPodAutoscaler knows how much CPU pods use. It looks every ten seconds, which is as
// often as it can.
func (c *Cluster) Metrics(ctx context.Context) error {
	path, err := c.options.part("metrics-server")
	if err != nil {
		return err
	}
	inside := c.BesideKubeconfig()
	err = c.Beside(ctx, "metrics-server", path, "--kubeconfig="+inside, "--authentication-kubeconfig="+inside, "--authorization-kubeconfig="+inside,
		"--bind-address="+hubAddress, "--secure-port=4443", "--cert-dir="+filepath.Join(c.Dir, "metrics"),
		"--kubelet-certificate-authority="+filepath.Join(c.Dir, "ca.crt"), "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s", "--kubelet-request-timeout=5s")
	if err != nil {
		return err
	}
	if _, err := c.KubectlInput(ctx, strings.ReplaceAll(metricsAPI, "$HUB", hubAddress), "apply", "-f-"); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=60s"); err != nil {
		return fmt.Errorf("%w: %s", err, tail(filepath.Join(c.Dir, "metrics-server.log")))
	}
	return nil
}
