package ztunnel

import (
	"context"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// view is what live connections are decided on again with.
type view struct {
	snapshot *store.Snapshot
	self     *mesh.Workload
	policies []*mesh.Policy // of the pod itself
}

// allowed decides on a connection to the pod with the policies of the moment;
// those that are named and not here are waited for, briefly.
func (p *Proxy) allowed(ctx context.Context, self *mesh.Workload, conn authz.Conn, record *telemetry.Record) error {
	snapshot, policies, _ := p.o.State.WaitPolicies(ctx, self)
	d := decide(snapshot, self, policies, conn)
	record.Decided(d.Policy, d.Reason)
	for _, key := range d.DryRun {
		p.log.Info("a dry-run policy would have refused a connection", "policy", key, "from", conn.SourceIP.String(), "identity", conn.Source.String(), "to", conn.Destination.String())
	}
	if d.Allow {
		return nil
	}
	return &deniedError{d}
}

// stillAllowed decides again on a connection to the pod.
func stillAllowed(conn authz.Conn, record *telemetry.Record) func(*view) error {
	return func(v *view) error {
		d := decide(v.snapshot, v.self, v.policies, conn)
		if d.Allow {
			return nil
		}
		record.Decided(d.Policy, d.Reason)
		return errPolicyChange
	}
}

// samePeer looks whether a tunnel still leads to whom it was opened to. A
// destination that is gone from the state is left: it may be ending in order.
func samePeer(w *mesh.Workload) func(*view) error {
	return func(v *view) error {
		if now := v.snapshot.Workload(w.UID); now != nil && now.Identity() != w.Identity() {
			return errPeerChange
		}
		return nil
	}
}

// watch decides again on all live connections whenever the state changes.
func (p *Proxy) watch(ctx context.Context) {
	select {
	case <-p.o.Ready:
	case <-ctx.Done():
		return
	}
	var self *mesh.Workload
	for {
		s := p.o.State.Snapshot()
		// A pod that leaves the state keeps its last policies until it is gone.
		if now := p.find(s); now != nil {
			self = now
		}
		if self != nil {
			policies, _ := s.Policies(self)
			p.live.revise(&view{s, self, policies})
			p.reviseOlder(ctx, policies)
			if err := p.sockets.SetTCPOnly(self.TCPOnly); err != nil {
				p.log.Warn("the setting for other protocols than TCP is not in force", "err", err)
			}
		}
		select {
		case <-s.Changed():
		case <-ctx.Done():
			return
		}
	}
}
