package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// serve opens the parts in order and runs them until ctx ends.
func serve(ctx context.Context, c config, levels *level.Levels, log *slog.Logger) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := run.RaiseOpenFiles(); err != nil {
		log.Warn("the limit of open files is low", "err", err)
	}
	if err := run.LimitMemory(); err != nil {
		log.Warn("limit of memory", "err", err)
	}
	a := &agent{config: c, log: log}
	defer a.close()
	if err := a.openTelemetry(); err != nil {
		return err
	}
	if err := a.openNode(ctx); err != nil {
		return err
	}
	if err := a.openMesh(); err != nil {
		return err
	}
	if err := a.openPods(); err != nil {
		return err
	}
	if err := a.openPages(levels, quit); err != nil {
		return err
	}
	group := a.group()
	log.Info("node agent started", "node", c.node, "instance", c.instance, "version", telemetry.Version)
	err := group.Run(ctx)
	if a.cluster != nil && a.cluster.uninstalled {
		err = errors.Join(err, a.uninstall())
		log.Info("the agent was uninstalled: nothing of it is left on the node", "err", err)
	}
	return err
}

// group is what runs. The last that is added is stopped first.
func (a *agent) group() *run.Group {
	served := make(chan struct{}) // closed when this agent owns the node and listens
	group := run.NewGroup(a.log, a.config.drain+10*time.Second)
	// The window first and last.
	group.Add("admin", a.pages.Run)
	group.Add("state on disk", a.tenure.within(after(served, a.keepState)))
	group.Add("discovery", a.discovery.Run)
	group.Add("readiness", (&monitor{a.ready, a.synced, a.manager, a.certificates, a.redirector, a.tenure, a.log}).run)
	// Stopped second: no new connections, the old ones drain; pins stay.
	group.Add("pods", a.pods.run)
	if k := a.cluster; k != nil {
		group.Add("kubelet", a.tenure.within(after(served, k.kubelet)))
		if k.farewell != nil {
			group.Add("DaemonSet", a.tenure.within(k.farewell.follow))
		}
		group.Add("installation", a.tenure.within(after(served, func(ctx context.Context) error { return k.keep(ctx, a.tenure) })))
	}
	group.Add("enrolment", a.tenure.within(func(ctx context.Context) error { return a.enrol(ctx, served) }))
	group.Add("connections of the agent before", a.tenure.within(after(served, a.tenure.inherit)))
	group.Add("handover", after(served, a.tenure.give))
	// Stopped first: whoever sends traffic here hears of it before it ends.
	group.Add("unready", func(ctx context.Context) error {
		<-ctx.Done()
		a.ready.Set("the agent stops", true)
		return nil
	})
	return group
}

// keepState writes what is known of the mesh down, for the next run.
func (a *agent) keepState(ctx context.Context) error {
	return a.state.store.Keep(ctx, filepath.Join(a.config.stateDir, "state"), func() map[string]map[string]string { return a.discovery.Versions() }, a.log)
}

// enrol comes to own the node, closes served then, and listens to who tells of pods. Pods
// of the last run are served again before anyone is listened to.
func (a *agent) enrol(ctx context.Context, served chan<- struct{}) error {
	a.tenure.prepare(ctx, a.synced.arrived)
	if err := a.manager.Restore(ctx); err != nil {
		a.log.Error("pods of the last run are not all known: they stay refused until they are told again", "err", err)
	}
	if err := a.tenure.own(ctx); err != nil {
		return err
	}
	if err := a.redirector.Own(); err != nil {
		return err
	}
	a.manager.Remember()
	if err := a.certificates.Prune(); err != nil {
		a.log.Warn("certificates of earlier pods", "err", err)
	}
	enrolment, err := podwatch.Listen(a.config.enrolSocket, a.manager, a.log)
	if err != nil {
		return err
	}
	close(served)
	if a.cluster == nil {
		return enrolment.Serve(ctx)
	}
	enrolment.HandleSandboxes(a.cluster.follower)
	following, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- a.cluster.follower.Run(following) }()
	err = enrolment.Serve(ctx)
	stop()
	return errors.Join(err, <-done)
}

// uninstall takes what is the agent's off the node, when all has ended.
func (a *agent) uninstall() error {
	c := a.config
	return errors.Join(a.redirector.Close(), redirect.Purge(a.kernel.BPFFS, c.instance, a.kernel.NodeNetNS), os.RemoveAll(c.stateDir), os.RemoveAll(c.certDir), a.tenure.remove())
}

// after returns an actor that waits for done first.
func after(done <-chan struct{}, run func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-done:
			return run(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}
