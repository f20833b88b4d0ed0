package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
)

// apiServer is Kubernetes without nodes: what the lab has no part for.
type apiServer struct {
	*child
	kubeconfig string
}

// startAPIServer starts it on the loopback of the lab's own namespace, with the state
// of before if there is any, and returns when it is ready.
func startAPIServer(ctx context.Context, c config, log *slog.Logger) (*apiServer, error) {
	dir := filepath.Join(c.stateDir, "kubernetes")
	pki := filepath.Join(c.parts, "pki")
	files, err := os.ReadDir(pki)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(pki, f.Name()))
		if err != nil {
			return nil, err
		}
		if err := write(filepath.Join(dir, f.Name()), text); err != nil {
			return nil, err
		}
	}
	p, err := start(ctx, filepath.Join(c.parts, "kubeparts"), "control-plane", dir, nil, []string{"-dir", dir, "-port", "6443"})
	if err != nil {
		return nil, err
	}
	return &apiServer{p, filepath.Join(dir, "admin.kubeconfig")}, nil
}
