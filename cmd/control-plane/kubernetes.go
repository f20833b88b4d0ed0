package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/ca/secret"
	"github.com/fairlead-mesh/fairlead/pkg/control/informer"
	"github.com/fairlead-mesh/fairlead/pkg/control/leader"
	"github.com/fairlead-mesh/fairlead/pkg/control/resident"
	"github.com/fairlead-mesh/fairlead/pkg/control/rootcert"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/run"
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
		return nil, run.Usage(err)
	}
	b := &backend{name: "API server " + k.config.Host}
	objects, err := informer.New(informer.Options{Kubernetes: k.core, Metadata: k.metadata, Dynamic: k.dynamic, Logger: log})
	if err != nil {
		return nil, err
	}
	b.objects = objects
	if b.reviewer, err = tokenreview.New(tokenreview.Options{Client: k.core.AuthenticationV1().TokenReviews(), Origin: origin, Registry: registry, Logger: log}); err != nil {
		return nil, err
	}
	followed := func() []*corev1.Pod { return objectsOf(b).Pods }
	if b.pods, err = resident.New(resident.Options{Followed: followed, Client: k.core.CoreV1(), Registry: registry}); err != nil {
		return nil, err
	}
	holder, err := b.newHolder(c, registry, log)
	if err != nil {
		return nil, err
	}
	if c.caCert == "" {
		b.parts = append(b.parts, part{"ca secret", func(ctx context.Context) error { return b.followSecret(ctx, c, k, holder, log) }})
	}
	return b, b.elect(c, k, holder, registry, log)
}

// objectsOf is the latest state, or an empty one.
func objectsOf(b *backend) *source.Objects {
	if o := b.objects.Objects(); o != nil {
		return o
	}
	return &source.Objects{}
}

// followSecret gives the holder what the Secrets of the control plane's namespace hold,
// from when they can be read and are right.
func (b *backend) followSecret(ctx context.Context, c config, k *clients, holder *ca.Holder, log *slog.Logger) error {
	// The trust domain of a new root is the mesh's, so the objects come first.
	for changed := b.objects.Changed(); b.objects.Objects() == nil; changed = b.objects.Changed() {
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
	said := ""
	for {
		s, err := secret.Open(ctx, secret.Options{
			Secrets: k.core.CoreV1().Secrets(c.namespace), Namespace: c.namespace, TrustDomain: objectsOf(b).Mesh.GetTrustDomain(), Holder: holder, Logger: log,
		})
		if err == nil {
			return s.Run(ctx)
		}
		if said != err.Error() {
			said = err.Error()
			log.Error("there is no CA, and nothing is served without; trying again", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// elect takes part in the election of the replica that writes.
func (b *backend) elect(c config, k *clients, holder *ca.Holder, registry *prometheus.Registry, log *slog.Logger) error {
	elector, err := leader.New(leader.Options{Client: k.core.CoordinationV1(), Namespace: c.namespace, Identity: c.identity, Registry: registry, Logger: log})
	if err != nil {
		return err
	}
	roots, err := rootcert.New(rootcert.Options{
		Client: k.core, Namespaces: func() []*corev1.Namespace { return objectsOf(b).Namespaces }, Namespaced: b.objects.Changed,
		Roots: func() []byte {
			if a := holder.Current(); a != nil {
				return a.RootsPEM()
			}
			return nil
		},
		Replaced: holder.Changed, Registry: registry, Logger: log,
	})
	if err != nil {
		return err
	}
	elector.Add("root publishing", roots.Run)
	if err := b.write(c, k, elector, registry, log); err != nil {
		return err
	}
	b.parts = append(b.parts, part{"leader election", elector.Run})
	return nil
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
