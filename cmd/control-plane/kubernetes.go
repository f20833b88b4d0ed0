package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-mesh/fairlead/pkg/control/informer"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/token/tokenreview"
)

// clients are those of one API server. None has a rate limit of its own: how often
// something is asked is bounded by who asks, and the API server shares its time itself.
type clients struct {
	config   *rest.Config // of clients that talk JSON
	core     kubernetes.Interface
	metadata metadata.Interface
	dynamic  dynamic.Interface
}

func newClients(c config) (*clients, error) {
	restConfig, err := restConfig(c.kubeconfig)
	if err != nil {
		return nil, err
	}
	restConfig.UserAgent = "fairlead-control-plane/" + telemetry.Version
	restConfig.QPS = -1
	k := &clients{config: restConfig}
	protobuf := rest.CopyConfig(restConfig)
	protobuf.ContentType = runtime.ContentTypeProtobuf
	protobuf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	if k.core, err = kubernetes.NewForConfig(protobuf); err != nil {
		return nil, err
	}
	if k.metadata, err = metadata.NewForConfig(restConfig); err != nil {
		return nil, err
	}
	k.dynamic, err = dynamic.NewForConfig(restConfig)
	return k, err
}

// restConfig is how to reach the API server: as a file says, or from within a pod.
func restConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		c, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("--in-cluster: %w", err)
		}
		return c, nil
	}
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("--kubeconfig: %w", err)
	}
	return c, nil
}

// openKubernetes is the backend of a Kubernetes API server.
func openKubernetes(c config, registry *prometheus.Registry, log *slog.Logger) (*backend, error) {
	k, err := newClients(c)
	if err != nil {
		return nil, usageError{err}
	}
	b := &backend{name: "API server " + k.config.Host}
	objects, err := informer.New(informer.Options{Kubernetes: k.core, Metadata: k.metadata, Dynamic: k.dynamic, Logger: log})
	if err != nil {
		return nil, err
	}
	b.objects, b.pods = objects, &podIndex{objects}
	if b.reviewer, err = tokenreview.New(tokenreview.Options{Client: k.core.AuthenticationV1().TokenReviews(), Origin: origin, Registry: registry, Logger: log}); err != nil {
		return nil, err
	}
	if err := b.openAuthority(c, source.DefaultMesh().GetTrustDomain(), registry, log); err != nil {
		return nil, err
	}
	return b, nil
}

// origin is the address that a call comes from, without its port.
func origin(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
