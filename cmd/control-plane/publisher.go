package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/control/push"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/control/waypoint"
)

// publisher turns each state of the objects into resources and statuses.
type publisher struct {
	translator *translate.Translator
	objects    objects
	log        *push.Log
	waypoints  *push.Waypoints
	last       *waypoint.Translation // or nil: none yet
	statuses   statusWriter          // or nil: none are written
	deployer   deployments           // or nil: nothing is deployed
	again      <-chan struct{}       // wakes who writes statuses, or nil
	logger     *slog.Logger
	published  chan struct{} // closes with the first state

	rejected, denied, resources prometheus.Gauge
	changes                     prometheus.Counter
	took                        prometheus.Histogram
}

func newPublisher(c config, b *backend, log *push.Log, waypoints *push.Waypoints, registry *prometheus.Registry, logger *slog.Logger) (*publisher, error) {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	p := &publisher{
		translator: translate.NewTranslator(translate.Options{ClusterID: c.clusterID, Network: c.network}),
		objects:    b.objects, statuses: b.statuses, deployer: b.deployer, again: b.again, log: log, waypoints: waypoints, logger: logger, published: make(chan struct{}),
		rejected:  gauge("fairlead_objects_rejected", "Objects that could not be taken as written."),
		denied:    gauge("fairlead_security_objects_denied", "Security objects that are wrong and, without a last good form, deny what they select."),
		resources: gauge("fairlead_resources", "Workloads, services and policies served."),
		changes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "fairlead_resource_changes_total", Help: "Resources changed, added or removed."}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fairlead_publish_seconds", Help: "From a changed state to the resources that follow from it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, 1, 5},
		}),
	}
	for _, collector := range []prometheus.Collector{p.rejected, p.denied, p.resources, p.changes, p.took} {
		if err := registry.Register(collector); err != nil {
			return nil, err
		}
	}
	return p, nil
}

const (
	// quiet is how long nothing may change before statuses are written, and late how
	// long they wait at most: they take longer than what is published.
	quiet = 100 * time.Millisecond
	late  = 10 * time.Second
)

// run publishes every state, until ctx ends; ready is called after the first.
func (p *publisher) run(ctx context.Context, ready func()) error {
	states := make(chan state, 1)
	written := make(chan struct{})
	go func() { defer close(written); p.writeStatuses(states) }()
	defer func() { close(states); <-written }()
	for first := true; ; {
		changed := p.objects.Changed()
		if objects := p.objects.Objects(); objects != nil {
			if err := p.publish(objects); err != nil {
				return err
			}
			if first {
				close(p.published)
				ready()
				first = false
			}
			select {
			case <-states: // it was not taken: only the latest counts
			default:
			}
			states <- state{objects, p.last}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// state is what was published, and the objects that it follows from.
type state struct {
	objects     *source.Objects
	translation *waypoint.Translation
}

// writeStatuses writes those of the latest state, the first at once, until there are
// no more.
func (p *publisher) writeStatuses(states <-chan state) {
	var latest state
	var due bool // it is to be written
	var written time.Time
	timer := time.NewTimer(quiet)
	defer timer.Stop()
	for {
		select {
		case next, more := <-states:
			if !more {
				return
			}
			latest, due = next, true
			timer.Reset(min(quiet, max(0, time.Until(written.Add(late)))))
			continue
		case <-p.again:
			due = latest.translation != nil
		case <-timer.C:
		}
		if p.statuses == nil || !due {
			continue
		}
		all := latest.translation.Status()
		if p.deployer != nil {
			if more := p.deployer.statuses(); len(more) > 0 {
				all = status.Join(all, more)
			}
		}
		if err := p.statuses.Write(latest.objects, all); err != nil {
			p.logger.Warn("status not written", "err", err)
		}
		due, written = false, time.Now()
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

// publish makes everything follow from a state: first what the nodes are told,
// then what the waypoints are.
func (p *publisher) publish(objects *source.Objects) error {
	start := time.Now()
	out, err := p.translator.Translate(objects)
	if err != nil {
		return err
	}
	changed, err := p.publishMesh(out)
	if err != nil {
		return err
	}
	p.last = waypoint.New(out, p.last)
	more, err := p.waypoints.Publish(out.Model, p.last.Resources)
	if err != nil {
		p.logger.Error("a waypoint's configuration stays as it was", "err", err)
	}
	if p.deployer != nil {
		p.deployer.deploy(objects)
	}
	p.took.Observe(time.Since(start).Seconds())
	rejected := 0
	for _, problem := range objects.Problems {
		if problem.Severity == source.Error {
			rejected++
		}
	}
	p.rejected.Set(float64(rejected))
	p.denied.Set(float64(out.Denied))
	p.resources.Set(float64(len(out.Policies) + len(out.Addresses)))
	p.changes.Add(float64(changed + more))
	p.logger.Debug("published", "generation", objects.Generation, "changed", changed, "waypoints", more, "policies", len(out.Policies), "addresses", len(out.Addresses))
	return nil
}

func (p *publisher) publishMesh(out translate.Output) (changed int, err error) {
	if c := out.Changes; c != nil {
		addresses := make(map[string]proto.Message, len(c.Addresses))
		for _, a := range c.Addresses {
			addresses[translate.AddressName(a)] = a
		}
		return p.log.Change(push.AddressType, addresses, c.Gone)
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
	return p.log.Set(push.Resources{push.AuthorizationType: policies, push.AddressType: addresses})
}

// problems is /debug/config: what is wrong in the objects.
func (p *publisher) problems() any {
	lines, generation := []string{}, uint64(0)
	if objects := p.objects.Objects(); objects != nil {
		generation = objects.Generation
		for _, problem := range objects.Problems {
			lines = append(lines, problem.String())
		}
	}
	return map[string]any{"generation": generation, "problems": lines}
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
