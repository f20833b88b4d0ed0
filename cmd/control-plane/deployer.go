package main

import (
	"log/slog"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// deployer writes what runs the waypoints that Gateways ask for.
type deployer struct {
	options deploy.Options
	writer  objectWriter
	logger  *slog.Logger
	last    *source.Objects // what was deployed, or nil

	// mu guards below: statuses are written beside.
	mu   sync.Mutex
	said map[string]string // the problems that were logged, by Gateway
}

var _ deployments = (*deployer)(nil)

func (d *deployer) statuses() []status.Status {
	var out []status.Status
	d.mu.Lock()
	defer d.mu.Unlock()
	for gateway, problem := range d.said {
		namespace, name, _ := strings.Cut(gateway, "/")
		s := status.Status{Object: translate.GatewayObject(namespace, name)}
		s.Set(status.Condition{Type: status.RouteAccepted, Status: "False", Reason: string(gatewayv1.GatewayReasonInvalid), Message: problem})
		s.Set(status.Condition{Type: status.Programmed, Status: "False", Reason: string(gatewayv1.GatewayReasonInvalid), Message: "nothing is deployed: " + problem})
		out = append(out, s)
	}
	status.Sort(out)
	return out
}

func newDeployer(c config, w objectWriter, logger *slog.Logger) *deployer {
	return &deployer{writer: w, logger: logger, said: map[string]string{}, options: deployOptions(c)}
}

func deployOptions(c config) deploy.Options {
	return deploy.Options{
		XDSAddress: c.advertise, ServerName: c.advertiseName, ClusterID: c.clusterID, Network: c.network,
		Image: c.waypointImage, EnvoyImage: c.envoyImage, PullPolicy: corev1.PullPolicy(c.waypointPull),
	}
}

func (d *deployer) deploy(objects *source.Objects) {
	if d.last != nil && source.Same(d.last.Gateways, objects.Gateways) && d.last.Mesh == objects.Mesh {
		return
	}
	d.last = objects
	d.options.TrustDomain, d.options.Statistics = objects.Mesh.GetTrustDomain(), objects.Mesh.GetDefaultConfig().GetProxyStatsMatcher()
	made, problems := deploy.Objects(objects.Gateways, d.options)
	said := map[string]string{}
	for gateway, err := range problems {
		said[gateway] = err.Error()
		if d.said[gateway] != err.Error() {
			d.logger.Error("a waypoint is not deployed as its Gateway asks", "gateway", gateway, "err", err)
		}
	}
	d.mu.Lock()
	d.said = said
	d.mu.Unlock()
	if err := d.writer.Write(made); err != nil {
		d.last = nil // the next state tries again
		d.logger.Error("objects of waypoints were not written", "err", err)
	}
}
