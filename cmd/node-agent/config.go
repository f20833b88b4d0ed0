package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// config is the command line.
type config struct {
	node, instance                                 string
	clusterID, network, trustDomain                string
	xdsAddress, caAddress, serverName              string
	rootCert, tokenFile                            string
	enrolSocket, stateDir, certDir                 string
	cgroup, kubeletCgroup                          string
	adminAddress, metricsAddress, readinessAddress string
	accessLog, logLevel, otherProtocols            string
	podName, podNamespace                          string
	kubernetes, byInjection                        bool
	kubeServer, kubeCredentials, hostProc          string
	excluded                                       []string
	cni                                            bool
	cniConfDir, cniBinDir, cniBinary, cniAccount   string
	daemonSet                                      string
	drain, certTTL, handoverPatience               time.Duration

	level  slog.Level
	format telemetry.Format
}

func (c *config) bind(f *pflag.FlagSet) {
	f.StringVar(&c.node, "node", "", "this node's name (required)")
	f.StringVar(&c.instance, "instance", "default", "names the pins in the kernel; one agent per instance")
	f.StringVar(&c.clusterID, "cluster-id", "Kubernetes", "the cluster's name")
	f.StringVar(&c.network, "network", "", "the node's network")
	f.StringVar(&c.trustDomain, "trust-domain", "cluster.local", "the mesh's trust domain")
	f.StringVar(&c.xdsAddress, "xds-address", "", "the control plane, host:port (required)")
	f.StringVar(&c.caAddress, "ca-address", "", "the CA, host:port; empty is the control plane")
	f.StringVar(&c.serverName, "xds-server-name", "istiod.istio-system.svc", "the name in the control plane's certificate")
	f.StringVar(&c.rootCert, "root-cert", "", "the mesh's root certificates in PEM (required)")
	f.StringVar(&c.tokenFile, "token-file", "", "the agent's token, read anew for each call (required)")
	f.StringVar(&c.enrolSocket, "enrol-socket", "/run/fairlead/agent.sock", "the Unix socket on which pods are announced")
	f.StringVar(&c.stateDir, "state-dir", "/var/lib/fairlead/agent", "the last good state and the known pods; no keys")
	f.StringVar(&c.certDir, "cert-dir", "/run/fairlead/certs", "certificates and keys over a restart; must be a tmpfs")
	f.StringVar(&c.cgroup, "cgroup", "", "the root of cgroup v2; empty finds it")
	f.StringVar(&c.kubeletCgroup, "kubelet-cgroup", "", "the cgroup v2 directory of the kubelet, whose connections to pods are probes; with --kubernetes it is found where empty")
	f.BoolVar(&c.kubernetes, "kubernetes", false, "follow the pods of this node in the Kubernetes API; without it they are announced on the socket")
	f.StringVar(&c.kubeServer, "kube-server", "", "the Kubernetes API, https://host:port; empty is that of the pod's environment")
	f.StringVar(&c.kubeCredentials, "kube-credentials", kube.CredentialsDir, "the directory of token and ca.crt for the Kubernetes API")
	f.StringVar(&c.hostProc, "host-proc", "/host/proc", "where the node's /proc is mounted")
	f.StringSliceVar(&c.excluded, "exclude-namespaces", []string{"kube-system", "istio-system"}, "namespaces of which no pod is captured, whatever labels say; the agent's own is one")
	f.BoolVar(&c.cni, "cni", true, "with --kubernetes, keep the CNI plugin on the node, so that pods are captured before their first process")
	f.StringVar(&c.cniConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the container runtime reads its CNI configuration")
	f.StringVar(&c.cniBinDir, "cni-bin-dir", "/opt/cni/bin", "where the container runtime finds CNI plugins")
	f.StringVar(&c.cniBinary, "cni-binary", "/usr/local/bin/fairlead-cni", "the plugin to install")
	f.StringVar(&c.cniAccount, "cni-account", "fairlead-cni", "the service account, in the agent's namespace, as which the plugin asks the API while no agent is there")
	f.StringVar(&c.daemonSet, "daemon-set", "ztunnel", "the DaemonSet of the agent: when it is deleted, the agent takes off the node what it put there; empty never does")
	f.BoolVar(&c.byInjection, "injection-label", false, "take istio-injection=enabled for an opt-in too")
	f.StringVar(&c.adminAddress, "admin-address", "localhost:15000", "config_dump, log level, pprof; keep it on loopback")
	f.StringVar(&c.metricsAddress, "metrics-address", "[::]:15020", "metrics")
	f.StringVar(&c.readinessAddress, "readiness-address", "[::]:15021", "readiness")
	f.StringVar(&c.otherProtocols, "other-protocols", "allow", "what is not TCP, and so not carried in mutual TLS: allow or deny; it is counted for each pod")
	f.StringVar(&c.accessLog, "access-log", "text", "a record per connection on standard output: text, json or off")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&c.podName, "pod-name", "ztunnel", "the agent's own pod, as its token says")
	f.StringVar(&c.podNamespace, "pod-namespace", "istio-system", "the agent's own namespace, as its token says")
	f.DurationVar(&c.drain, "drain", drainDefault(os.Getenv), "how long connections may go on when the agent is stopped; by default of $CONNECTION_TERMINATION_DEADLINE or $TERMINATION_GRACE_PERIOD_SECONDS")
	f.DurationVar(&c.handoverPatience, "handover-patience", 2*time.Minute, "how long the next agent may take to get ready, while changes to pods wait; then this one keeps the node, and the next ends")
	f.DurationVar(&c.certTTL, "cert-ttl", 24*time.Hour, "the life of certificates to ask for; our CA gives 24h at most")
}

func (c *config) complete() error {
	var errs []error
	for _, required := range []struct{ flag, value string }{
		{"--node", c.node}, {"--xds-address", c.xdsAddress}, {"--root-cert", c.rootCert}, {"--token-file", c.tokenFile},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("%s is required", required.flag))
		}
	}
	if !slices.Contains(c.excluded, c.podNamespace) {
		c.excluded = append(c.excluded, c.podNamespace)
	}
	if c.caAddress == "" {
		c.caAddress = c.xdsAddress
	}
	if err := c.level.UnmarshalText([]byte(c.logLevel)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level: %q: want debug, info, warn or error", c.logLevel))
	}
	if c.otherProtocols != "allow" && c.otherProtocols != "deny" {
		errs = append(errs, fmt.Errorf("--other-protocols: %q: want allow or deny", c.otherProtocols))
	}
	var err error
	if c.format, err = telemetry.ParseFormat(c.accessLog); err != nil {
		errs = append(errs, fmt.Errorf("--access-log: %w", err))
	}
	return errors.Join(errs...)
}

// drainDefault is Istio's: the deadline that is set, or the pod's grace period
// less what it takes to end in order, or 5 s.
func drainDefault(getenv func(string) string) time.Duration {
	if d, err := time.ParseDuration(getenv("CONNECTION_TERMINATION_DEADLINE")); err == nil && d >= 0 {
		return d
	}
	grace, err := strconv.Atoi(getenv("TERMINATION_GRACE_PERIOD_SECONDS"))
	switch {
	case err != nil || grace <= 0:
		return 5 * time.Second
	case grace <= 10:
		return time.Duration(max(grace-1, 1)) * time.Second
	}
	return time.Duration(grace-5) * time.Second
}
