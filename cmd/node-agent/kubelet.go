package main

import (
	"context"
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
)

// kubeletCheck is how often it is looked whether the kubelet has come into a cgroup
// of its own anew: a service's is made with it.
const kubeletCheck = time.Second

// kubelet follows the kubelet's cgroup, unless the command line names it.
func (k *cluster) kubelet(ctx context.Context) error {
	if k.config.kubeletCgroup != "" {
		<-ctx.Done()
		return nil
	}
	return (&kubeletWatch{proc: hostproc.Open(k.config.hostProc), redirector: k.redirector, log: k.log}).run(ctx)
}

// kubeletWatch keeps the redirector told of the kubelet's cgroup.
type kubeletWatch struct {
	proc       *hostproc.Proc
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
