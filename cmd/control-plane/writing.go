package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/fairlead-mesh/fairlead/pkg/control/apply"
	"github.com/fairlead-mesh/fairlead/pkg/control/leader"
	"github.com/fairlead-mesh/fairlead/pkg/control/report"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/webhook"
)

// writesPerSecond and writesAtOnce bound what the leader writes of statuses, and the same
// again of waypoints' objects: a new control plane of a large mesh must not be felt at the
// API server.
const writesPerSecond, writesAtOnce = 100, 200

// write has the leader write statuses, waypoints' objects and the webhook's configuration.
func (b *backend) write(c config, k *clients, elector *leader.Elector, registry *prometheus.Registry, log *slog.Logger) error {
	paced := rest.CopyConfig(k.config)
	paced.QPS, paced.Burst = writesPerSecond, writesAtOnce
	statuses, err := dynamic.NewForConfig(paced)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(paced)
	if err != nil {
		return err
	}
	writer, err := report.New(report.Options{Client: statuses, Registry: registry, Logger: log})
	if err != nil {
		return err
	}
	b.again = make(chan struct{}, 1)
	applier, err := apply.New(apply.Options{
		Metadata: objects, Dynamic: k.dynamic, SystemNamespace: c.namespace, Deploy: deployOptions(c), Registry: registry, Logger: log,
		Changed: func() {
			select {
			case b.again <- struct{}{}:
			default: // it is on its way
			}
		},
	})
	if err != nil {
		return err
	}
	b.statuses, b.deployer = statusObjects{writer}, waypoints{applier}
	elector.Add("statuses", writer.Run)
	elector.Add("waypoints", applier.Run)
	if c.webhookListen == "" {
		return nil
	}
	keeper, err := webhook.NewKeeper(webhook.KeeperOptions{
		Client: k.core.AdmissionregistrationV1().ValidatingWebhookConfigurations(), Name: "istio-validator-" + c.namespace,
		Policy: admissionregistrationv1.FailurePolicyType(c.webhookPolicy), Proved: webhook.Proof(k.dynamic, c.namespace), Logger: log,
		Roots: func() []byte {
			if a := b.authority.Current(); a != nil {
				return a.RootsPEM()
			}
			return nil
		},
		RootsChanged: func() <-chan struct{} { return b.authority.Changed() },
	})
	if err != nil {
		return err
	}
	elector.Add("webhook configuration", keeper.Run)
	return nil
}

// statusObjects are statuses on the objects themselves.
type statusObjects struct{ writer *report.Writer }

func (s statusObjects) Write(objects *source.Objects, all []status.Status) error {
	s.writer.Set(all, report.Generations(objects))
	return nil
}

// waypoints run in the cluster.
type waypoints struct{ applier *apply.Applier }

func (w waypoints) deploy(objects *source.Objects) {
	w.applier.Set(objects.Gateways, objects.Mesh)
}

func (w waypoints) statuses() []status.Status { return w.applier.Statuses() }

// checks are the webhook that checks objects.
type checks struct {
	handler  *webhook.Handler
	listener net.Listener
	serving  *servingCertificate
}

// newChecks is nil where no objects are checked.
func newChecks(c config, serving *servingCertificate, registry *prometheus.Registry, log *slog.Logger) (*checks, error) {
	if c.webhookListen == "" {
		return nil, nil
	}
	handler, err := webhook.NewHandler(registry, log)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.webhookListen)
	if err != nil {
		return nil, fmt.Errorf("--webhook-listen: %w", err)
	}
	return &checks{handler, listener, serving}, nil
}

func (c *checks) run(ctx context.Context) error {
	return c.handler.Serve(ctx, c.listener, c.serving.get)
}
