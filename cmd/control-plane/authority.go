package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
)

// openAuthority takes the CA out of files, plugged in or its own, and follows those that
// are plugged in; its roots are written where the command line says.
func (b *backend) openAuthority(c config, trustDomain string, registry *prometheus.Registry, log *slog.Logger) error {
	h, err := ca.NewHolder(ca.HolderOptions{Settle: c.rootSettle, Registry: registry, Logger: log})
	if err != nil {
		return err
	}
	b.authority = h
	if c.caCert == "" {
		a, err := ca.Create(c.stateDir, trustDomain)
		if err != nil {
			return usageError{err}
		}
		h.Set(a, c.stateDir)
	} else {
		files := ca.Files{Cert: c.caCert, Key: c.caKey, Chain: c.certChain, Roots: c.rootCerts}
		a, err := ca.Load(files)
		if err != nil {
			return usageError{err}
		}
		h.Set(a, c.caCert)
		b.parts = append(b.parts, part{"ca files", func(ctx context.Context) error { files.Follow(ctx, h); return nil }})
	}
	if c.rootCertOut == "" {
		return nil
	}
	changed := h.Changed()
	if err := writeRoots(c.rootCertOut, h.Current().RootsPEM()); err != nil {
		return err
	}
	b.parts = append(b.parts, part{"root certificates", func(ctx context.Context) error {
		for {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil
			}
			changed = h.Changed()
			if err := writeRoots(c.rootCertOut, h.Current().RootsPEM()); err != nil {
				return err
			}
		}
	}})
	return nil
}

func writeRoots(path string, roots []byte) error {
	if err := os.WriteFile(path+".new", roots, 0o644); err != nil {
		return fmt.Errorf("--root-cert-out: %w", err)
	}
	return os.Rename(path+".new", path)
}
