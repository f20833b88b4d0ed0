package main

import (
	"context"
	"net"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllersoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"
)

// ofAll are the controllers that a mesh's cluster needs in any case: no clouds, no
// volumes, no certificates.
var ofAll = []string{
	"serviceaccount", "serviceaccount-token", "root-ca-certificate-publisher", "namespace", "endpointslice", "endpoints",
	"clusterrole-aggregation", "validatingadmissionpolicy-status",
}

// ofPods are the controllers that make pods, and that which deletes what has lost its
// owner.
var ofPods = []string{
	"garbage-collector", "deployment", "replicaset", "daemonset", "statefulset", "job", "disruption", "horizontal-pod-autoscaler",
}

// ofNodes are the controllers that delete the pods of nodes without a kubelet.
var ofNodes = []string{"pod-garbage-collector", "node-lifecycle", "taint-eviction"}

// parse gives the arguments to the flags of a program that is not run as a command.
func parse(sets cliflag.NamedFlagSets, args ...string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	return all.Parse(args)
}

// apiServer prepares the API server; what it returns serves until ctx ends.
func apiServer(ctx context.Context, dir, address, services string, aggregate bool, l net.Listener, etcd string) (func() error, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	port := l.Addr().(*net.TCPAddr).Port
	reconciler := "lease"
	if ip := net.ParseIP(address); ip.IsLoopback() {
		reconciler = "none" // no endpoint may be on loopback: nobody calls the Service kubernetes
	}
	o := apiserveroptions.NewServerRunOptions()
	o.SecureServing.Listener = l
	args := []string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + address, "--advertise-address=" + address, "--secure-port=" + strconv.Itoa(port),
		"--endpoint-reconciler-type=" + reconciler,
		"--tls-cert-file=" + in("apiserver.crt"), "--tls-private-key-file=" + in("apiserver.key"), "--client-ca-file=" + in("ca.crt"),
		"--kubelet-certificate-authority=" + in("ca.crt"),
		"--kubelet-client-certificate=" + in("kubelet-client.crt"), "--kubelet-client-key=" + in("kubelet-client.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + in("service-account.pub"), "--service-account-signing-key-file=" + in("service-account.key"),
		"--service-cluster-ip-range=" + services,
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--enable-priority-and-fairness=false", "--profiling=false",
		// Webhooks are called at their pods: no kube-proxy runs beside the API server.
		"--enable-aggregator-routing=true",
	}
	if aggregate {
		args = append(args, "--requestheader-client-ca-file="+in("ca.crt"), "--requestheader-allowed-names=front-proxy",
			"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file="+in("front-proxy.crt"), "--proxy-client-key-file="+in("front-proxy.key"))
	}
	if err := parse(o.Flags(), args...); err != nil {
		return nil, err
	}
	if err := o.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	completed, err := o.Complete(ctx)
	if err != nil {
		return nil, err
	}
	if errs := completed.Validate(); len(errs) != 0 {
		return nil, utilerrors.NewAggregate(errs)
	}
	return func() error { return apiserver.Run(ctx, completed) }, nil
}

// controllerManager prepares controllers of those kinds.
func controllerManager(ctx context.Context, dir string, kinds []string) (func() error, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	o, err := controllersoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return nil, err
	}
	known, disabled, aliases := controllers.KnownControllers(), controllers.ControllersDisabledByDefault(), controllers.ControllerAliases()
	flags := o.Flags(known, disabled, aliases)
	o.ParsedFlags = &flags
	err = parse(flags,
		"--kubeconfig="+in("controllers.kubeconfig"), "--leader-elect=false", "--secure-port=0",
		"--use-service-account-credentials=false",
		"--root-ca-file="+in("ca.crt"), "--service-account-private-key-file="+in("service-account.key"),
		"--kube-api-qps=200", "--kube-api-burst=400", "--controller-start-interval=0s",
		"--node-monitor-grace-period=16s", "--concurrent-endpoint-syncs=10",
		"--horizontal-pod-autoscaler-sync-period=5s", "--horizontal-pod-autoscaler-initial-readiness-delay=5s", "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
		"--controllers="+strings.Join(kinds, "-controller,")+"-controller",
	)
	if err != nil {
		return nil, err
	}
	c, err := o.Config(ctx, known, disabled, aliases)
	if err != nil {
		return nil, err
	}
	return func() error { return controllers.Run(ctx, c.Complete()) }, nil
}

// podScheduler prepares the scheduler.
func podScheduler(ctx context.Context, dir string) (func() error, error) {
	o := scheduleroptions.NewOptions()
	err := parse(*o.Flags, "--kubeconfig="+filepath.Join(dir, "scheduler.kubeconfig"), "--leader-elect=false", "--secure-port=0")
	if err != nil {
		return nil, err
	}
	c, s, err := scheduler.Setup(ctx, o)
	if err != nil {
		return nil, err
	}
	return func() error { return scheduler.Run(ctx, c, s) }, nil
}
