package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

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

// agent is the parts of the node agent, in the order in which they are opened: a part
// uses those above it.
type agent struct {
	config config
	log    *slog.Logger

	// Of openTelemetry.
	registry *prometheus.Registry
	recorder *telemetry.Recorder
	// Of openNode.
	kernel     redirect.Options
	tenure     *tenure
	redirector *redirect.Redirector
	// Of openMesh.
	ready        *admin.Readiness
	state        *lastState
	certificates *identity.Manager
	synced       *synced
	discovery    *xds.Client
	// Of openPods.
	pods    *enroller
	manager *podwatch.Manager
	cluster *cluster // or nil, without Kubernetes
	// Of openPages.
	pages *admin.Server

	closers []func()
}

// atEnd has closer called when the agent ends, or does not come up.
func (a *agent) atEnd(closer func()) { a.closers = append(a.closers, closer) }

// close closes what was opened, the last first.
func (a *agent) close() {
	for _, c := range slices.Backward(a.closers) {
		c()
	}
}

// openTelemetry opens what all others count and write into.
func (a *agent) openTelemetry() error {
	a.registry = prometheus.NewRegistry()
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := telemetry.RegisterBuild(a.registry, "node-agent"); err != nil {
		return err
	}
	lines, err := telemetry.NewLineWriter(os.Stdout, a.registry)
	if err != nil {
		return err
	}
	a.atEnd(lines.Close)
	a.recorder, err = telemetry.NewRecorder(a.registry, telemetry.NewAccessLog(a.config.format, lines))
	return err
}

// openNode begins the tenure, or asks the agent before for it, and opens the kernel's side.
func (a *agent) openNode(ctx context.Context) error {
	c := a.config
	a.kernel = redirect.Options{Instance: c.instance, CgroupPath: c.cgroup, KubeletCgroup: c.kubeletCgroup, Logger: a.log}
	if c.kubernetes {
		// The node's own, as it is at the time: one that is mounted into the container stays
		// as it was where the node's is mounted anew.
		node := hostproc.Open(c.hostProc)
		a.kernel.NodeNetNS, a.kernel.BPFFS, a.kernel.Mounted = node.NodeNetNS(), node.Path(redirect.BPFFS), true
	}
	if missing := redirect.Precheck(a.kernel.BPFFS, a.kernel.Mounted); len(missing) > 0 {
		return run.Usage(errors.New(strings.Join(missing, "\n")))
	}
	var err error
	if a.tenure, err = begin(ctx, c.enrolSocket, a.log); err != nil {
		return err
	}
	a.tenure.patience = c.handoverPatience
	if err := a.registry.Register(a.tenure.mended); err != nil {
		return err
	}
	// The kernel first: what an earlier run pinned stays in force, and nothing
	// else is worth starting without it.
	a.kernel.Beside = a.tenure.taker != nil
	if a.redirector, err = redirect.New(a.kernel); err != nil {
		return err
	}
	a.atEnd(func() { a.redirector.Close() })
	return telemetry.RegisterVerdicts(a.registry, func() []telemetry.Verdict {
		var out []telemetry.Verdict
		for _, v := range a.redirector.Verdicts() {
			out = append(out, telemetry.Verdict(v))
		}
		return out
	})
}

// openMesh loads what the last run knew of the mesh, and opens the ways to the control
// plane and the CA.
func (a *agent) openMesh() error {
	c := a.config
	a.ready = &admin.Readiness{}
	if err := os.MkdirAll(c.stateDir, 0o700); err != nil {
		return run.Usage(err)
	}
	var err error
	if a.state, err = loadState(c, a.log); err != nil {
		return err
	}
	xdsConn, err := identity.Dial(c.xdsAddress, c.serverName, c.rootCert, identity.Token{File: c.tokenFile, Cluster: c.clusterID})
	if err != nil {
		return run.Usage(err)
	}
	a.atEnd(func() { xdsConn.Close() })
	caConn, err := identity.Dial(c.caAddress, c.serverName, c.rootCert, identity.Token{File: c.tokenFile, Cluster: c.clusterID})
	if err != nil {
		return run.Usage(err)
	}
	a.atEnd(func() { caConn.Close() })
	a.certificates, err = identity.NewManager(identity.Options{CA: identity.NewClient(caConn), RootFile: c.rootCert, Directory: c.certDir, TTL: c.certTTL, Logger: a.log})
	if err != nil {
		return run.Usage(err)
	}
	a.atEnd(a.certificates.Close)
	a.synced = newSynced(a.ready, a.state.known)
	a.discovery, err = xds.NewClient(xds.Options{
		Conn: xdsConn, Applier: a.state.store, Known: a.state.versions, Synced: a.synced.mark, Logger: a.log,
		NodeID:   "ztunnel~1.1.1.1~" + c.podName + "." + c.podNamespace + "~" + c.podNamespace + ".svc.cluster.local",
		Metadata: map[string]any{"NAME": c.podName, "NAMESPACE": c.podNamespace, "NODE_NAME": c.node, "CLUSTER_ID": c.clusterID, "ISTIO_VERSION": xds.IstioVersion, xds.FairleadVersion: telemetry.Version},
	})
	return err
}

// openPods makes what captures and serves pods, and what knows them. Nothing of the node
// is changed by it.
func (a *agent) openPods() error {
	c := a.config
	a.pods = newEnroller(a.redirector, ztunnel.Options{
		State: a.state.store, Certificates: a.certificates, Recorder: a.recorder, Logger: a.log, Ready: a.synced.usable, Accept: a.tenure.owned,
		Network: c.network, TrustDomain: c.trustDomain,
	}, c.drain, c.otherProtocols == "deny", a.log)
	if err := telemetry.RegisterPodVerdicts(a.registry, a.pods.verdicts); err != nil {
		return err
	}
	var err error
	a.manager, err = podwatch.NewManager(podwatch.Options{Enroller: a.pods, Logger: a.log, File: filepath.Join(c.stateDir, "pods.json")})
	if err != nil {
		return err
	}
	if err := registerPods(a.registry, a.manager); err != nil {
		return err
	}
	a.tenure.manager, a.tenure.pods, a.tenure.ready = a.manager, a.pods, a.ready
	a.pods.inherited = a.tenure.inherited()
	if c.kubernetes {
		a.cluster, err = newCluster(c, a.manager, a.redirector, a.registry, a.log)
	}
	return err
}

// openPages opens the window on all of it.
func (a *agent) openPages(levels *level.Levels, quit func()) (err error) {
	c := a.config
	a.pages, err = admin.Listen(admin.Options{
		AdminAddress: c.adminAddress, MetricsAddress: c.metricsAddress, ReadinessAddress: c.readinessAddress,
		Registry: a.registry, Readiness: a.ready, Level: levels, Quit: quit, Logger: a.log,
		Dump: func() (any, error) {
			return dump(c, a.state.store.Snapshot(), a.certificates.Status(), a.pods.proxies()), nil
		},
	})
	return err
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
