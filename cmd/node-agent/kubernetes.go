package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/local"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
)

// kubeletCheck is how often it is looked whether the kubelet has come into a cgroup
// of its own anew: a service's is made with it.
const kubeletCheck = time.Second

// newLocal follows the node's pods in the Kubernetes API.
func newLocal(c config, api *kube.Client, manager *podwatch.Manager, registry *prometheus.Registry, log *slog.Logger) (*local.Controller, error) {
	tries := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fairlead_enrolments_total", Help: "Tries to capture a pod, by what came of them: ok or failed.",
	}, []string{"result"})
	if err := registry.Register(tries); err != nil {
		return nil, err
	}
	for _, result := range []string{"ok", "failed"} {
		tries.WithLabelValues(result)
	}
	return local.New(local.Options{
		API: api, Manager: manager, Finder: hostproc.Open(c.hostProc), Node: c.node, Logger: log,
		Rule: podwatch.Rule{Excluded: c.excluded, Injection: c.byInjection},
		Observe: func(err error) {
			if err != nil {
				tries.WithLabelValues("failed").Inc()
				return
			}
			tries.WithLabelValues("ok").Inc()
		},
	})
}

// kubeletWatch keeps the redirector told of the kubelet's cgroup.
type kubeletWatch struct {
	proc       hostproc.Proc
	redirector *redirect.Redirector
	log        *slog.Logger

	path  string
	inode uint64
	told  string // the last failure
}

func (k *kubeletWatch) run(ctx context.Context) error {
	tick := time.NewTicker(kubeletCheck)
	defer tick.Stop()
	for {
		k.look()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look finds the kubelet's cgroup where the last one is gone, or another by now.
func (k *kubeletWatch) look() {
	if k.path != "" && inode(k.path) == k.inode {
		return
	}
	path, err := k.proc.KubeletCgroup(k.redirector.CgroupRoot())
	if err == nil {
		n := inode(path)
		if err = k.redirector.SetKubelet(path); err == nil {
			k.path, k.inode, k.told = path, n, ""
			k.log.Info("the kubelet's probes are known by its cgroup", "cgroup", path)
			return
		}
	}
	k.path = ""
	if k.told != err.Error() {
		k.told = err.Error()
		k.log.Warn("the kubelet's probes are not known: where mutual TLS is required they fail", "err", err)
	}
}

// inode is 0 for what is not there.
func inode(path string) uint64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// kubeClient is the agent's client of the API.
func kubeClient(c config) (*kube.Client, error) {
	cfg, err := kube.InCluster(c.kubeServer, c.kubeCredentials)
	if err != nil {
		return nil, usageError{err}
	}
	api, err := kube.New(cfg)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", c.kubeCredentials, err)}
	}
	return api, nil
}
