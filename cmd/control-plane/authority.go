package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/run"
)

// newHolder holds the backend's CA. Whoever has one of files has it from now on, and
// followed; its roots are written where the command line says.
func (b *backend) newHolder(c config, registry *prometheus.Registry, log *slog.Logger) (*ca.Holder, error) {
	h, err := ca.NewHolder(ca.HolderOptions{Settle: c.rootSettle, Registry: registry, Logger: log})
	if err != nil {
		return nil, err
	}
	b.authority = h
	if c.rootCertOut != "" {
		b.parts = append(b.parts, part{"root certificates", func(ctx context.Context) error { return followRoots(ctx, h, c.rootCertOut) }})
	}
	if c.caCert == "" {
		return h, nil
	}
	files := ca.Files{Cert: c.caCert, Key: c.caKey, Chain: c.certChain, Roots: c.rootCerts}
	a, err := ca.Load(files)
	if err != nil {
		return nil, run.Usage(err)
	}
	h.Set(a, c.caCert)
	b.parts = append(b.parts, part{"ca files", func(ctx context.Context) error { files.Follow(ctx, h); return nil }})
	return h, nil
}

// followRoots keeps a file of the mesh's roots.
func followRoots(ctx context.Context, h *ca.Holder, path string) error {
	for {
		changed := h.Changed()
		if err := writeRoots(h, path); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func writeRoots(h *ca.Holder, path string) error {
	a := h.Current()
	if a == nil || path == "" {
		return nil
	}
	if err := os.WriteFile(path+".new", a.RootsPEM(), 0o644); err != nil {
		return fmt.Errorf("--root-cert-out: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("--root-cert-out: %w", err)
	}
	return nil
}
