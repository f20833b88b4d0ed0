package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/cni"
	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/local"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
	"github.com/fairlead-mesh/fairlead/pkg/run"
)

// cluster is what of the agent belongs to Kubernetes.
type cluster struct {
	config     config
	api        *kube.Client
	follower   *local.Controller
	installer  *cni.Installer // or nil
	redirector *redirect.Redirector
	log        *slog.Logger
	farewell   *farewell // or nil: the agent always comes again
	// uninstalled is set by keep when it ends: the agent does not come again.
	uninstalled bool
}

func newCluster(c config, manager *podwatch.Manager, redirector *redirect.Redirector, registry *prometheus.Registry, log *slog.Logger) (*cluster, error) {
	k := &cluster{config: c, redirector: redirector, log: log}
	how, err := kube.InCluster(c.kubeServer, c.kubeCredentials)
	if err != nil {
		return nil, run.Usage(err)
	}
	if k.api, err = kube.New(how); err != nil {
		return nil, run.Usage(fmt.Errorf("%s: %w", c.kubeCredentials, err))
	}
	if c.cni {
		k.installer = newInstaller(c, k.api, log)
	}
	if c.daemonSet != "" {
		k.farewell = &farewell{api: k.api, namespace: c.podNamespace, daemonSet: c.daemonSet, patience: askingTime, log: log}
		if k.installer != nil {
			k.farewell.account = k.installer.Client
		}
	}
	tries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fairlead_enrolments_total", Help: "Tries to capture a pod, by what came of them: ok or failed.",
	}, []string{"result"})
	if err := registry.Register(tries); err != nil {
		return nil, err
	}
	ok, failed := tries.WithLabelValues("ok"), tries.WithLabelValues("failed")
	k.follower, err = local.New(local.Options{
		API: k.api, Manager: manager, Finder: hostproc.Open(c.hostProc), Node: c.node, Logger: log,
		Rule: podwatch.Rule{Excluded: c.excluded, Injection: c.byInjection}, Namespaces: k.note,
		Observe: func(err error) {
			if err != nil {
				failed.Inc()
				return
			}
			ok.Inc()
		},
	})
	return k, err
}

// note writes down the namespaces' labels for the CNI plugin.
func (k *cluster) note(labels map[string]map[string]string) {
	if k.installer == nil {
		return
	}
	if err := k.installer.Note(labels); err != nil {
		k.log.Warn("namespaces not noted: the CNI plugin does not know them while no agent is there", "err", err)
	}
}

// keep keeps the CNI plugin on the node. When the agent is told to end for good, it
// lets the pods go and takes the plugin off.
func (k *cluster) keep(ctx context.Context, t *tenure) error {
	var err error
	if k.installer == nil {
		<-ctx.Done()
	} else {
		err = k.installer.Run(ctx)
	}
	ctx = context.WithoutCancel(ctx)
	if err != nil || t.isOver() || k.farewell == nil || !k.farewell.isUninstalled(ctx) {
		return err
	}
	k.uninstalled = true
	k.log.Info("the agent's DaemonSet is deleted: pods leave the mesh, and what was put on the node is taken off")
	// The plugin first: it would hold back pods while no agent is there.
	if k.installer != nil {
		err = k.installer.Remove()
	}
	return errors.Join(err, k.follower.ReleaseAll(ctx))
}

// newInstaller keeps the CNI plugin on the node.
func newInstaller(c config, api *kube.Client, log *slog.Logger) *cni.Installer {
	return &cni.Installer{
		ConfDir: c.cniConfDir, BinDir: c.cniBinDir, Binary: c.cniBinary, API: api, Namespace: c.podNamespace, Account: c.cniAccount, Log: log,
		Config: cni.Config{
			Socket: c.enrolSocket, Note: filepath.Join(c.stateDir, "namespaces.json"),
			Credentials:        filepath.Join(filepath.Dir(c.enrolSocket), "cni-credentials.json"),
			ExcludedNamespaces: c.excluded, Injection: c.byInjection,
		},
	}
}
