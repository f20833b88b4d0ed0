package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
)

// apiServer is Kubernetes without what makes pods: the lab does that.
type apiServer struct {
	*child
	kubeconfig string
}

// apiPort is its port on the loopback of the lab's own namespace.
const apiPort = "6443"

// startAPIServer starts it with the state of before, if there is any: who was issued a
// token goes on with it.
func startAPIServer(ctx context.Context, c config) (*apiServer, error) {
	dir := filepath.Join(c.stateDir, "kubernetes")
	a := &apiServer{kubeconfig: filepath.Join(dir, "admin.kubeconfig")}
	if _, err := os.Stat(a.kubeconfig); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if err := cluster.Certificates(dir, "https://127.0.0.1:"+apiPort); err != nil {
			return nil, err
		}
	}
	var services []string
	for _, prefix := range network.Dual.ServicePrefixes() {
		services = append(services, prefix.String())
	}
	var err error
	a.child, err = start(ctx, filepath.Join(c.parts, "control-plane"), "control-plane", dir, nil, []string{
		"-dir", dir, "-port", apiPort, "-written", "-services", strings.Join(services, ","),
	})
	return a, err
}
