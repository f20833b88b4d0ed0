package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/fairlead-mesh/fairlead/pkg/admin"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/level"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
	"github.com/fairlead-mesh/fairlead/pkg/ztunnel"
)

// serve makes the parts in order and runs them until ctx ends.
func serve(ctx context.Context, c config, levels *level.Levels, log *slog.Logger) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	if err := run.RaiseOpenFiles(); err != nil {
		log.Warn("the limit of open files is low", "err", err)
	}
	if err := run.LimitMemory(); err != nil {
		log.Warn("limit of memory", "err", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := telemetry.RegisterBuild(registry, "node-agent"); err != nil {
		return err
	}
	lines, err := telemetry.NewLineWriter(os.Stdout, registry)
	if err != nil {
		return err
	}
	defer lines.Close()
	recorder, err := telemetry.NewRecorder(registry, telemetry.NewAccessLog(c.format, lines))
	if err != nil {
		return err
	}

	kernel := redirect.Options{Instance: c.instance, CgroupPath: c.cgroup, KubeletCgroup: c.kubeletCgroup, Logger: log}
	if c.kubernetes {
		// The node's own, as it is at the time: one that is mounted into the container stays
		// as it was where the node's is mounted anew.
		node := hostproc.Open(c.hostProc)
		kernel.NodeNetNS, kernel.BPFFS, kernel.Mounted = node.NodeNetNS(), node.Path(redirect.BPFFS), true
	}
	if missing := redirect.Precheck(kernel.BPFFS, kernel.Mounted); len(missing) > 0 {
		return usageError{errors.New(strings.Join(missing, "\n"))}
	}
	tenure, err := begin(ctx, c.enrolSocket, log)
	if err != nil {
		return err
	}
	tenure.patience = c.handoverPatience
	if err := registry.Register(tenure.mended); err != nil {
		return err
	}
	// The kernel first: what an earlier run pinned stays in force, and nothing
	// else is worth starting without it.
	kernel.Beside = tenure.taker != nil
	redirector, err := redirect.New(kernel)
	if err != nil {
		return err
	}
	defer redirector.Close()
	if err := telemetry.RegisterVerdicts(registry, func() []telemetry.Verdict {
		var out []telemetry.Verdict
		for _, v := range redirector.Verdicts() {
			out = append(out, telemetry.Verdict(v))
		}
		return out
	}); err != nil {
		return err
	}

	ready := &admin.Readiness{}
	if err := os.MkdirAll(c.stateDir, 0o700); err != nil {
		return usageError{err}
	}
	state, err := loadState(c, log)
	if err != nil {
		return err
	}
	xdsConn, err := identity.Dial(c.xdsAddress, c.serverName, c.rootCert, identity.Token{File: c.tokenFile, Cluster: c.clusterID})
	if err != nil {
		return usageError{err}
	}
	defer xdsConn.Close()
	caConn, err := identity.Dial(c.caAddress, c.serverName, c.rootCert, identity.Token{File: c.tokenFile, Cluster: c.clusterID})
	if err != nil {
		return usageError{err}
	}
	defer caConn.Close()
	certificates, err := identity.NewManager(identity.Options{CA: identity.NewClient(caConn), RootFile: c.rootCert, Directory: c.certDir, TTL: c.certTTL, Logger: log})
	if err != nil {
		return usageError{err}
	}
	defer certificates.Close()

	synced := newSynced(ready, state.known)
	discovery, err := xds.NewClient(xds.Options{
		Conn: xdsConn, Applier: state.store, Known: state.versions, Synced: synced.mark, Logger: log,
		NodeID:   "ztunnel~1.1.1.1~" + c.podName + "." + c.podNamespace + "~" + c.podNamespace + ".svc.cluster.local",
		Metadata: map[string]any{"NAME": c.podName, "NAMESPACE": c.podNamespace, "NODE_NAME": c.node, "CLUSTER_ID": c.clusterID, "ISTIO_VERSION": xds.IstioVersion, xds.FairleadVersion: telemetry.Version},
	})
	if err != nil {
		return err
	}

	pods := newEnroller(redirector, ztunnel.Options{
		State: state.store, Certificates: certificates, Recorder: recorder, Logger: log, Ready: synced.usable, Accept: tenure.owned,
		Network: c.network, TrustDomain: c.trustDomain,
	}, c.drain, c.otherProtocols == "deny", log)
	if err := telemetry.RegisterPodVerdicts(registry, pods.verdicts); err != nil {
		return err
	}
	manager, err := podwatch.NewManager(podwatch.Options{Enroller: pods, Logger: log, File: filepath.Join(c.stateDir, "pods.json")})
	if err != nil {
		return err
	}
	if err := registerPods(registry, manager); err != nil {
		return err
	}
	tenure.manager, tenure.pods, tenure.ready = manager, pods, ready
	pods.inherited = tenure.inherited()
	var cluster *cluster
	if c.kubernetes {
		if cluster, err = newCluster(c, manager, redirector, registry, log); err != nil {
			return err
		}
	}
	pages, err := admin.Listen(admin.Options{
		AdminAddress: c.adminAddress, MetricsAddress: c.metricsAddress, ReadinessAddress: c.readinessAddress,
		Registry: registry, Readiness: ready, Level: levels, Quit: quit, Logger: log,
		Dump: func() (any, error) {
			return dump(c, state.store.Snapshot(), certificates.Status(), pods.proxies()), nil
		},
	})
	if err != nil {
		return err
	}

	served := make(chan struct{}) // closed when this agent owns the node and listens
	group := run.NewGroup(log, c.drain+10*time.Second)
	// The window first and last.
	group.Add("admin", pages.Run)
	group.Add("state on disk", tenure.within(after(served, func(ctx context.Context) error {
		return state.store.Keep(ctx, filepath.Join(c.stateDir, "state"), func() map[string]map[string]string { return discovery.Versions() }, log)
	})))
	group.Add("discovery", discovery.Run)
	group.Add("readiness", (&monitor{ready, synced, manager, certificates, redirector, tenure, log}).run)
	// Stopped second: no new connections, the old ones drain; pins stay.
	group.Add("pods", pods.run)
	if cluster != nil {
		group.Add("kubelet", tenure.within(after(served, cluster.kubelet)))
		if cluster.farewell != nil {
			group.Add("DaemonSet", tenure.within(cluster.farewell.follow))
		}
		group.Add("installation", tenure.within(after(served, func(ctx context.Context) error { return cluster.keep(ctx, tenure) })))
	}
	// Pods of the last run are served again before anyone is listened to.
	group.Add("enrolment", tenure.within(func(ctx context.Context) error {
		tenure.prepare(ctx, synced.arrived)
		if err := manager.Restore(ctx); err != nil {
			log.Error("pods of the last run are not all known: they stay refused until they are told again", "err", err)
		}
		if err := tenure.own(ctx); err != nil {
			return err
		}
		if err := redirector.Own(); err != nil {
			return err
		}
		manager.Remember()
		if err := certificates.Prune(); err != nil {
			log.Warn("certificates of earlier pods", "err", err)
		}
		enrolment, err := podwatch.Listen(c.enrolSocket, manager, log)
		if err != nil {
			return err
		}
		close(served)
		if cluster == nil {
			return enrolment.Serve(ctx)
		}
		enrolment.HandleSandboxes(cluster.follower)
		following, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan error, 1)
		go func() { done <- cluster.follower.Run(following) }()
		err = enrolment.Serve(ctx)
		stop()
		return errors.Join(err, <-done)
	}))
	group.Add("connections of the agent before", tenure.within(after(served, tenure.inherit)))
	group.Add("handover", after(served, tenure.give))
	// Stopped first: whoever sends traffic here hears of it before it ends.
	group.Add("unready", func(ctx context.Context) error {
		<-ctx.Done()
		ready.Set("the agent stops", true)
		return nil
	})
	log.Info("node agent started", "node", c.node, "instance", c.instance, "version", telemetry.Version)
	err = group.Run(ctx)
	if cluster != nil && cluster.uninstalled {
		err = errors.Join(err, redirector.Close(), redirect.Purge(kernel.BPFFS, c.instance, kernel.NodeNetNS), os.RemoveAll(c.stateDir), os.RemoveAll(c.certDir), tenure.remove())
		log.Info("the agent was uninstalled: nothing of it is left on the node", "err", err)
	}
	return err
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

// lastState is what an earlier run left.
type lastState struct {
	store    *store.Store
	versions xds.Versions
	known    bool
}

func loadState(c config, log *slog.Logger) (*lastState, error) {
	s, err := store.New(log)
	if err != nil {
		return nil, err
	}
	saved, err := store.Load(filepath.Join(c.stateDir, "state"))
	if err != nil {
		log.Warn("starting without the last state", "err", err)
		return &lastState{store: s}, nil
	}
	known := len(saved.State.Workloads) > 0
	if known {
		if err := s.Apply(saved.State); err != nil {
			return nil, err
		}
		log.Info("last state loaded", "workloads", len(saved.State.Workloads), "services", len(saved.State.Services), "policies", len(saved.State.Policies))
	}
	return &lastState{store: s, versions: saved.Versions, known: known}, nil
}
