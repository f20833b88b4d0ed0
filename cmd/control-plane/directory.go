package main

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairlead-mesh/fairlead/pkg/ca"
	"github.com/fairlead-mesh/fairlead/pkg/control/deploy"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/status"
	"github.com/fairlead-mesh/fairlead/pkg/run"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// openDirectory is the backend of a directory of YAML, with keys and statuses in files.
func openDirectory(c config, registry *prometheus.Registry, log *slog.Logger) (*backend, error) {
	b := &backend{name: "directory " + c.configDir}
	keys, err := token.ReadKeys(c.tokenKeys)
	if err != nil {
		return nil, run.Usage(err)
	}
	// The objects come first: the trust domain of a new root is theirs.
	directory, err := source.NewDirectory(source.Options{ConfigDir: c.configDir, DerivedDir: c.derivedDir, Logger: log})
	if err != nil {
		return nil, run.Usage(err)
	}
	b.objects, b.reviewer, b.pods = directory, keys, &podIndex{directory}
	holder, err := b.newHolder(c, registry, log)
	if err != nil {
		return nil, err
	}
	if c.caCert == "" {
		own, err := ca.Create(c.stateDir, directory.Objects().Mesh.GetTrustDomain())
		if err != nil {
			return nil, run.Usage(err)
		}
		holder.Set(own, c.stateDir)
	}
	// Who waits for this program to be ready reads the file then.
	if err := writeRoots(holder, c.rootCertOut); err != nil {
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
		w, err := status.NewWriter(c.statusDir, log)
		if err != nil {
			return nil, err
		}
		b.statuses = statusFiles{w}
	}
	return b, nil
}

// statusFiles are statuses beside a directory.
type statusFiles struct{ *status.Writer }

func (s statusFiles) Write(_ *source.Objects, all []status.Status) error { return s.Writer.Write(all) }
