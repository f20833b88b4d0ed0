package main

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// config is the command line.
type config struct {
	configDir, derivedDir, statusDir, stateDir string
	kubeconfig                                 string
	inCluster                                  bool
	namespace, identity                        string
	deployDir, advertise, advertiseName        string
	waypointImage, envoyImage, waypointPull    string
	webhookListen, webhookPolicy               string
	listen, adminAddress                       string
	metricsAddress, readinessAddress           string
	clusterID, network                         string
	tokenKeys                                  string
	nodeAccounts, dnsNames                     []string
	rootCertOut                                string
	rootSettle                                 time.Duration
	caCert, caKey, certChain, rootCerts        string
	logLevel                                   string

	level slog.Level
}

func (c *config) bind(f *pflag.FlagSet) {
	f.StringVar(&c.configDir, "config-dir", "", "serve a directory of YAML: this one")
	f.StringVar(&c.kubeconfig, "kubeconfig", "", "serve the cluster whose API server this file names")
	f.BoolVar(&c.inCluster, "in-cluster", false, "serve the cluster in which this is a pod")
	f.StringVar(&c.namespace, "namespace", "", "the control plane's own namespace, of the CA's Secret and the leader's Lease; empty: the variable POD_NAMESPACE, or istio-system")
	f.StringVar(&c.identity, "identity", "", "this replica's name in the election of the leader, which no other has; empty: the variable POD_NAME, or the host's name and the process's id")
	f.StringVar(&c.derivedDir, "derived-dir", "", "a directory of objects made by a program, such as pods with their status")
	f.StringVar(&c.statusDir, "status-dir", "", "where the objects' status is written; empty writes none")
	f.StringVar(&c.deployDir, "deploy-dir", "", "where the objects that run waypoints are written; empty writes none")
	f.StringVar(&c.advertise, "advertise-address", "", "where waypoints reach this control plane, host:port (with --deploy-dir, required; else istiod in --namespace)")
	f.StringVar(&c.advertiseName, "advertise-name", "istiod.istio-system.svc", "the name in its certificate that they ask for")
	f.StringVar(&c.waypointImage, "waypoint-image", "fairlead-waypoint", "what waypoints' pods run")
	f.StringVar(&c.envoyImage, "envoy-image", "envoyproxy/envoy:v1.40.0", "what runs beside it where a Gateway is annotated fairlead.dev/waypoint-engine: envoy")
	f.StringVar(&c.waypointPull, "waypoint-pull-policy", "", "when waypoints' images are pulled: Always, IfNotPresent or Never; empty is Kubernetes' default")
	f.StringVar(&c.webhookListen, "webhook-listen", "", "the address at which objects are checked for the API server, with TLS; empty checks none")
	f.StringVar(&c.webhookPolicy, "webhook-failure-policy", "Fail", "what the API server does with objects while no control plane can check them: Fail or Ignore")
	f.StringVar(&c.stateDir, "state-dir", "", "where the CA's root and key are kept, the key with mode 0600 (with --config-dir, required)")
	f.StringVar(&c.listen, "listen", "[::]:15012", "the address of xDS and the CA, with TLS")
	f.StringVar(&c.adminAddress, "admin-address", "localhost:15014", "metrics, readiness and /debug/syncz; keep it on loopback")
	f.StringVar(&c.metricsAddress, "metrics-address", "", "metrics alone, for those who may not see the rest; empty leaves them to --admin-address")
	f.StringVar(&c.readinessAddress, "readiness-address", "", "readiness alone, likewise")
	f.StringVar(&c.clusterID, "cluster-id", "Kubernetes", "the cluster's name, the first part of workloads' uids")
	f.StringVar(&c.network, "network", "", "the network of pods and services")
	f.StringVar(&c.tokenKeys, "token-keys", "", "public keys in PEM that verify the callers' tokens (with --config-dir, required)")
	f.StringSliceVar(&c.nodeAccounts, "node-accounts", []string{"istio-system/ztunnel"}, "service accounts of node agents, as namespace/name")
	f.StringSliceVar(&c.dnsNames, "dns-names", []string{"istiod.istio-system.svc", "istiod.istio-system.svc.cluster.local", "localhost"}, "names in the server's certificate")
	f.StringVar(&c.rootCertOut, "root-cert-out", "", "write the mesh's root certificates there")
	f.DurationVar(&c.rootSettle, "root-settle", 3*time.Minute, "how long a root that the mesh does not trust yet is published before certificates come from it")
	f.StringVar(&c.caCert, "ca-cert", "", "a plugged-in CA's certificate; with --ca-key and --root-certs")
	f.StringVar(&c.caKey, "ca-key", "", "its key")
	f.StringVar(&c.certChain, "cert-chain", "", "its chain, if it is not a root")
	f.StringVar(&c.rootCerts, "root-certs", "", "the roots to trust; several while one is replaced")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
}

// complete checks the command line as a whole.
func (c *config) complete() error {
	var errs []error
	ways := 0
	for _, given := range []bool{c.configDir != "", c.kubeconfig != "", c.inCluster} {
		if given {
			ways++
		}
	}
	if ways != 1 {
		errs = append(errs, errors.New("exactly one of --config-dir, --kubeconfig and --in-cluster says where the objects are"))
	}
	c.namespace = cmp.Or(c.namespace, os.Getenv("POD_NAMESPACE"), "istio-system")
	if c.identity = cmp.Or(c.identity, os.Getenv("POD_NAME")); c.identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--identity: %w", err)
		}
		c.identity = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	required := map[string]string{}
	onlyDirectory := map[string]string{"--state-dir": c.stateDir, "--derived-dir": c.derivedDir, "--status-dir": c.statusDir, "--deploy-dir": c.deployDir, "--token-keys": c.tokenKeys}
	onlyCluster := map[string]string{"--webhook-listen": c.webhookListen}
	if c.configDir != "" {
		required = map[string]string{"--state-dir": c.stateDir, "--token-keys": c.tokenKeys}
		onlyDirectory = nil
	} else {
		onlyCluster = nil
	}
	for _, flag := range slices.Sorted(maps.Keys(required)) {
		if required[flag] == "" {
			errs = append(errs, fmt.Errorf("%s is required", flag))
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(onlyDirectory)) {
		if onlyDirectory[flag] != "" {
			errs = append(errs, fmt.Errorf("%s goes with --config-dir: with an API server, that is where things are", flag))
		}
	}
	for _, flag := range slices.Sorted(maps.Keys(onlyCluster)) {
		if onlyCluster[flag] != "" {
			errs = append(errs, fmt.Errorf("%s goes with --kubeconfig or --in-cluster: a directory asks nobody", flag))
		}
	}
	if c.configDir != "" {
		if info, err := os.Stat(c.configDir); err != nil {
			errs = append(errs, fmt.Errorf("--config-dir: %w", err))
		} else if !info.IsDir() {
			errs = append(errs, fmt.Errorf("--config-dir: %s is not a directory", c.configDir))
		}
	}
	if plugged := c.caCert != "" || c.caKey != "" || c.rootCerts != "" || c.certChain != ""; plugged && (c.caCert == "" || c.caKey == "" || c.rootCerts == "") {
		errs = append(errs, errors.New("a plugged-in CA needs --ca-cert, --ca-key and --root-certs"))
	}
	if c.rootSettle < 0 {
		errs = append(errs, errors.New("--root-settle: must not be negative"))
	}
	if c.webhookListen != "" && c.webhookPolicy != "Fail" && c.webhookPolicy != "Ignore" {
		errs = append(errs, fmt.Errorf("--webhook-failure-policy: %q: want Fail or Ignore", c.webhookPolicy))
	}
	if c.waypointPull != "" && !slices.Contains([]string{"Always", "IfNotPresent", "Never"}, c.waypointPull) {
		errs = append(errs, fmt.Errorf("--waypoint-pull-policy: %q: want Always, IfNotPresent or Never", c.waypointPull))
	}
	if c.configDir == "" && c.advertise == "" {
		c.advertise = "istiod." + c.namespace + ".svc:15012"
	}
	if c.deployDir != "" && c.advertise == "" {
		errs = append(errs, errors.New("--deploy-dir needs --advertise-address: waypoints must know where to ask"))
	}
	for _, a := range c.nodeAccounts {
		if strings.Count(a, "/") != 1 {
			errs = append(errs, fmt.Errorf("--node-accounts: %q: want namespace/name", a))
		}
	}
	if err := c.level.UnmarshalText([]byte(c.logLevel)); err != nil {
		errs = append(errs, fmt.Errorf("--log-level: %q: want debug, info, warn or error", c.logLevel))
	}
	return errors.Join(errs...)
}
