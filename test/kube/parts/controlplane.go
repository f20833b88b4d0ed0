package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// controlPlane is etcd, the API server, the controllers and the scheduler in this
// process. The directory holds their certificates and keys under fixed names
// (cluster.Certificates writes them) and takes their state.
func controlPlane(args []string) error {
	f := flag.NewFlagSet("control-plane", flag.ContinueOnError)
	dir := f.String("dir", "", "directory of certificates, keys and state")
	address := f.String("address", "127.0.0.1", "address that the API server listens on and advertises")
	port := f.Int("port", 0, "port of the API server; 0 leaves it to -inherit")
	inherit := f.Bool("inherit", false, "file descriptor 3 is a listening socket: serve it too")
	nodes := f.Bool("nodes", false, "nodes have kubelets: pods of dead nodes are evicted and deleted")
	written := f.Bool("written", false, "pods are as they are written: nothing makes, schedules or deletes them")
	aggregate := f.Bool("aggregate", false, "the API server asks servers of other APIs, proving itself with front-proxy.crt")
	services := f.String("services", "10.96.0.0/16", "ranges of the services' addresses, one or one of each family")
	lifeline := f.Bool("lifeline", false, "end when standard input does: whoever started this is gone")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *dir == "" {
		return errors.New("-dir is needed: the directory that cluster.Certificates wrote its files to")
	}
	if *lifeline {
		go endWith(os.Stdin)
	}
	// Three programs that each believe to be alone share one set of signals and of
	// logging options: the first settles both.
	logsapi.ReapplyHandling = logsapi.ReapplyHandlingIgnoreUnchanged
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	ctx := genericapiserver.SetupSignalContext()
	ended := make(chan error, 4)
	start := func(name string, serve func() error) {
		go func() { ended <- fmt.Errorf("%s ended: %w", name, errors.Join(serve(), ctx.Err())) }()
	}

	socket, err := etcd(*dir)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	l, err := listen(*address, *port, *inherit)
	if err != nil {
		return err
	}
	serve, err := apiServer(ctx, *dir, *address, *services, *aggregate, l, socket)
	if err != nil {
		return fmt.Errorf("API server: %w", err)
	}
	start("API server", serve)
	// Both wait for the API server by themselves, but slowly: they back off.
	if err := ready(ctx, filepath.Join(*dir, "controllers.kubeconfig"), ended); err != nil {
		return err
	}
	kinds := slices.Clone(ofAll)
	if !*written {
		kinds = append(kinds, ofPods...)
	}
	if *nodes {
		kinds = append(kinds, ofNodes...)
	}
	if serve, err = controllerManager(ctx, *dir, kinds); err != nil {
		return fmt.Errorf("controller manager: %w", err)
	}
	start("controller manager", serve)
	if !*written {
		if serve, err = podScheduler(ctx, *dir); err != nil {
			return fmt.Errorf("scheduler: %w", err)
		}
		start("scheduler", serve)
	}
	err = <-ended
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// ready waits until the API server says so, or one of the parts ended.
func ready(ctx context.Context, kubeconfig string, ended <-chan error) error {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	c.GroupVersion, c.NegotiatedSerializer = &schema.GroupVersion{Version: "v1"}, scheme.Codecs
	client, err := rest.UnversionedRESTClientFor(c)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * time.Minute)
	var last error
	for {
		select {
		case <-tick.C:
			if last = client.Get().AbsPath("/readyz").Do(ctx).Error(); last == nil {
				return nil
			}
		case err := <-ended:
			return err
		case <-deadline:
			return fmt.Errorf("the API server is not ready after two minutes: %w", last)
		}
	}
}
