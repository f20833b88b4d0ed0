package main

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// openDirectory is the backend of a directory of YAML, with keys and statuses in files.
func openDirectory(c config, log *slog.Logger) (*backend, error) {
	b := &backend{name: "directory " + c.configDir}
	keys, err := token.ReadKeys(c.tokenKeys)
	if err != nil {
		return nil, usageError{err}
	}
	// The objects come first: the trust domain of a new root is theirs.
	directory, err := source.NewDirectory(source.Options{ConfigDir: c.configDir, DerivedDir: c.derivedDir, Logger: log})
	if err != nil {
		return nil, usageError{err}
	}
	b.objects, b.reviewer, b.pods = directory, keys, &podIndex{directory}
	authority, err := openAuthority(c, directory.Objects().Mesh.GetTrustDomain())
	if err != nil {
		return nil, usageError{err}
	}
	b.authority = fixedAuthority{authority}
	if err := writeRoots(c.rootCertOut, authority.RootsPEM()); err != nil {
		return nil, err
	}
	if c.deployDir != "" {
		w, err := deploy.NewWriter(c.deployDir)
		if err != nil {
			return nil, err
		}
		b.deployer = newDeployer(c, w, log)
	}
	if c.statusDir != "" {
		if b.statuses, err = status.NewWriter(c.statusDir, log); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// fixedAuthority stays the same.
type fixedAuthority struct{ ca *ca.Authority }

func (f fixedAuthority) Current() *ca.Authority { return f.ca }

func (f fixedAuthority) Changed() <-chan struct{} { return nil }

func openAuthority(c config, trustDomain string) (*ca.Authority, error) {
	if c.caCert != "" {
		return ca.Load(ca.Files{Cert: c.caCert, Key: c.caKey, Chain: c.certChain, Roots: c.rootCerts})
	}
	return ca.Create(c.stateDir, trustDomain)
}

func writeRoots(path string, roots []byte) error {
	if path == "" {
		return nil
	}
	if err := os.WriteFile(path+".new", roots, 0o644); err != nil {
		return fmt.Errorf("--root-cert-out: %w", err)
	}
	return os.Rename(path+".new", path)
}
