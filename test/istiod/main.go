// Command istiod stands in the place of the lab's control plane: it takes the same
// flags, and behind them are a real API server and a real istiod. What the lab says of
// its cluster is mirrored to the API server as it changes; what istiod wants to run
// comes back as the lab's waypoints, and what it says of objects as their status.
//
// `lab up --binaries` names the directory that it lies in under the name control-plane.
// It is for tests, and only they use it.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/fairlead-mesh/fairlead/pkg/run"
)

// config is the command line, as the lab gives it to the product's control plane.
type config struct {
	configDir, derivedDir, statusDir, deployDir, stateDir string
	listen, clusterID                                     string
	advertise, advertiseName                              string
	rootCertOut                                           string
	// parts holds the binaries of Kubernetes and Istio, and what they are installed
	// with; tokens is the lab's --token-dir, which the environment names the parent of.
	parts, tokens string
}

// Where the environment says what the lab has no flag for.
const (
	partsVariable  = "FAIRLEAD_PARTS"
	tokensVariable = "FAIRLEAD_TOKENS"
)

// stopTimeout bounds how long one part may take to stop.
const stopTimeout = 10 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c := config{parts: os.Getenv(partsVariable), tokens: os.Getenv(tokensVariable)}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := c.parse(os.Args[1:])
	if err == nil {
		err = serve(ctx, c, log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(1)
	}
}

func (c *config) parse(args []string) error {
	f := pflag.NewFlagSet("control-plane", pflag.ContinueOnError)
	f.ParseErrorsAllowlist.UnknownFlags = true // what only the product's has
	f.StringVar(&c.configDir, "config-dir", "", "the directory of YAML")
	f.StringVar(&c.derivedDir, "derived-dir", "", "what the lab made")
	f.StringVar(&c.statusDir, "status-dir", "", "where the objects' status is written")
	f.StringVar(&c.deployDir, "deploy-dir", "", "where the objects that run waypoints are written")
	f.StringVar(&c.stateDir, "state-dir", "", "where the API server keeps its state")
	f.StringVar(&c.listen, "listen", "[::]:15012", "the address of xDS and the CA")
	f.StringVar(&c.clusterID, "cluster-id", "Kubernetes", "the cluster's name")
	f.StringVar(&c.advertise, "advertise-address", "", "where waypoints reach it")
	f.StringVar(&c.advertiseName, "advertise-name", "istiod.istio-system.svc", "the name in its certificate")
	f.StringVar(&c.rootCertOut, "root-cert-out", "", "write the mesh's root certificates there")
	if err := f.Parse(args); err != nil {
		return err
	}
	if c.parts == "" || c.tokens == "" {
		return errors.New("the environment must have " + partsVariable + " and " + tokensVariable)
	}
	c.tokens = filepath.Join(c.tokens, filepath.Base(filepath.Dir(c.stateDir))) // the lab's name
	return nil
}

// serve starts the parts in order and runs them until ctx ends.
func serve(ctx context.Context, c config, log *slog.Logger) error {
	began := time.Now()
	api, err := startAPIServer(ctx, c)
	if err != nil {
		return err
	}
	clients, err := newClients(api.kubeconfig)
	if err != nil {
		return err
	}
	if err := clients.ready(ctx, api.child); err != nil {
		return err
	}
	if err := clients.install(ctx, filepath.Join(c.parts, "istio", "crds")); err != nil {
		return err
	}
	log.Info("the API server has its kinds", "after", time.Since(began).String())
	m := newMirror(c, clients, log)
	group := run.NewGroup(log, stopTimeout)
	group.Add("API server", api.wait)
	// The cluster is there before istiod looks: it would be ready with nothing.
	if err := m.first(ctx); err != nil {
		return err
	}
	log.Info("the lab's objects are on the API server", "after", time.Since(began).String())
	istiod, err := startIstiod(ctx, c, api.kubeconfig)
	if err != nil {
		return err
	}
	group.Add("istiod", istiod.wait)
	group.Add("mirror", m.run)
	group.Add("way back", newReturns(c, clients, log).run)
	return group.Run(ctx)
}
