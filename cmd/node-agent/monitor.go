package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
)

const (
	// syncPatience is how long an agent with a last state waits for its control
	// plane before it says that it is ready without.
	syncPatience = 5 * time.Second
	// certificateCheck is how often certificates are looked at, and pins.
	certificateCheck = 2 * time.Second
	// orderCheck is how often it is looked whether another's program has come
	// ahead of ours in the kernel.
	orderCheck = 10 * time.Second
)

// monitor keeps the readiness true to what is: pods, control plane, certificates.
type monitor struct {
	ready        *admin.Readiness
	synced       *synced
	manager      *podwatch.Manager
	certificates *identity.Manager
	redirector   *redirect.Redirector
	tenure       *tenure
	log          *slog.Logger
}

func (m *monitor) run(ctx context.Context) error {
	pods := m.ready.Wait("the node's pods, from the last run or whoever creates them")
	complete := m.manager.Complete()
	patience := time.NewTimer(syncPatience)
	defer patience.Stop()
	tick := time.NewTicker(certificateCheck)
	defer tick.Stop()
	order := time.NewTicker(orderCheck)
	defer order.Stop()
	ended, displaced, unpinned := map[string]bool{}, map[string]bool{}, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-complete:
			pods()
			complete = nil
		case <-patience.C:
			if m.synced.settle() {
				m.log.Warn("the control plane has not answered: serving from the last state")
			}
		case <-tick.C:
			ended = m.lookAtCertificates(ended)
			if m.tenure.isSole() {
				unpinned = m.lookAtPins(unpinned)
			}
		case <-order.C:
			if m.tenure.isSole() {
				displaced = m.lookAtOrder(displaced)
			}
		}
	}
}

// lookAtCertificates tells of those that have ended: connections with these
// identities are refused.
func (m *monitor) lookAtCertificates(before map[string]bool) map[string]bool {
	now := map[string]bool{}
	for _, s := range m.certificates.Status() {
		if s.Cert == nil || !s.Cert.Expired(time.Now()) {
			continue
		}
		name := "a certificate in place of the ended one of " + s.Identity.String()
		now[name] = true
		if !before[name] {
			m.ready.Set(name, true)
			m.log.Error("certificate ended: connections of its identity are refused", "identity", s.Identity.String(), "ended", s.Cert.Leaf().NotAfter, "err", s.Failure)
		}
	}
	for name := range before {
		if !now[name] {
			m.ready.Set(name, false)
		}
	}
	return now
}

// lookAtPins has those made again that are missing, and tells of what is in the way.
func (m *monitor) lookAtPins(before string) string {
	now := ""
	if err := m.tenure.mend(); err != nil {
		now = "pins in the BPF file system: " + err.Error()
	}
	if now == before {
		return before
	}
	if before != "" {
		m.ready.Set(before, false)
	}
	if now != "" {
		m.ready.Set(now, true)
		m.log.Error("what is attached in the kernel goes with this agent, since it cannot be pinned", "err", now)
	}
	return now
}

// lookAtOrder tells of programs that run ahead of ours.
func (m *monitor) lookAtOrder(before map[string]bool) map[string]bool {
	sentences, err := m.redirector.Displaced()
	if err != nil {
		m.log.Warn("the order of programs in the kernel is not known", "err", err)
		return before
	}
	now := map[string]bool{}
	for _, s := range sentences {
		now[s] = true
		if !before[s] {
			m.ready.Set(s, true)
			m.log.Error("the capture is displaced", "what", s)
		}
	}
	for s := range before {
		if !now[s] {
			m.ready.Set(s, false)
		}
	}
	return now
}

// registerPods counts the node's pods by state.
func registerPods(registry *prometheus.Registry, manager *podwatch.Manager) error {
	var errs []error
	for _, state := range []string{podwatch.StateEnrolled, podwatch.StatePassthrough, podwatch.StateFailed} {
		errs = append(errs, registry.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "fairlead_pods", Help: "Pods of the node: in the mesh, outside, or failed to be captured.", ConstLabels: prometheus.Labels{"state": state},
		}, func() float64 {
			n := 0
			for _, e := range manager.Pods() {
				if e.Status.State == state {
					n++
				}
			}
			return float64(n)
		})))
	}
	return errors.Join(errs...)
}
