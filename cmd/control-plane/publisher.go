package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// publisher turns each state of the directory into resources and statuses.
type publisher struct {
	options   translate.Options
	directory *source.Directory
	log       *push.Log
	statuses  *status.Writer // or nil: none are written
	logger    *slog.Logger
	published chan struct{} // closes with the first state

	rejected, denied, resources prometheus.Gauge
	changes                     prometheus.Counter
}

func newPublisher(c config, directory *source.Directory, log *push.Log, registry *prometheus.Registry, logger *slog.Logger) (*publisher, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	p := &publisher{
		options:   translate.Options{ClusterID: c.clusterID, Network: c.network},
		directory: directory, log: log, logger: logger, published: make(chan struct{}),
		rejected:  gauge("fairlead_objects_rejected", "Objects that could not be taken as written."),
		denied:    gauge("fairlead_security_objects_denied", "Security objects that are wrong and, without a last good form, deny what they select."),
		resources: gauge("fairlead_resources", "Workloads, services and policies served."),
		changes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_resource_changes_total", Help: "Resources changed, added or removed."}),
	}
	for _, collector := range []prometheus.Collector{p.rejected, p.denied, p.resources, p.changes} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	if c.statusDir == "" {
		return p, nil
	}
	var err error
	p.statuses, err = status.NewWriter(c.statusDir, logger)
	return p, err
}

// run publishes every state, until ctx ends; ready is called after the first.
func (p *publisher) run(ctx context.Context, ready func()) error {
	for first := true; ; first = false {
		changed := p.directory.Changed()
		if err := p.publish(p.directory.Objects()); err != nil {
			return err
		}
		if first {
			close(p.published)
			ready()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// wait returns when the first state is published; false when ctx ended before.
func (p *publisher) wait(ctx context.Context) bool {
	select {
	case <-p.published:
		return true
	case <-ctx.Done():
		return false
	}
}

func (p *publisher) publish(objects *source.Objects) error {
	out, err := translate.Translate(objects, p.options)
	if err != nil {
		return err
	}
	policies := make(map[string]proto.Message, len(out.Policies))
	for _, policy := range out.Policies {
		policies[translate.PolicyName(policy)] = policy
	}
	addresses := make(map[string]proto.Message, len(out.Addresses))
	for _, a := range out.Addresses {
		addresses[translate.AddressName(a)] = a
	}
	// In one step: a workload must not be known before what protects it.
	n, err := p.log.Set(push.Resources{push.AuthorizationType: policies, push.AddressType: addresses})
	if err != nil {
		return err
	}
	rejected := 0
	for _, problem := range objects.Problems {
		if problem.Severity == source.Error {
			rejected++
		}
	}
	p.rejected.Set(float64(rejected))
	p.denied.Set(float64(out.Denied))
	p.resources.Set(float64(len(policies) + len(addresses)))
	p.changes.Add(float64(n))
	p.logger.Debug("published", "generation", objects.Generation, "changed", n, "policies", len(policies), "addresses", len(addresses))
	if p.statuses == nil {
		return nil
	}
	if err := p.statuses.Write(out.Status); err != nil {
		p.logger.Warn("status not written", "err", err)
	}
	return nil
}

// problems is /debug/config: what is wrong in the files.
func (p *publisher) problems() any {
	lines := []string{}
	for _, problem := range p.directory.Objects().Problems {
		lines = append(lines, problem.String())
	}
	return map[string]any{"generation": p.directory.Objects().Generation, "problems": lines}
}

// page shows a value as JSON.
func page(value func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(value()) // the reader has gone
	}
}
