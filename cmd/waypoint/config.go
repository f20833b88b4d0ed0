package main

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/pflag"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// config is the command line.
type config struct {
	clusterID, network, trustDomain                         string
	xdsAddress, caAddress, serverName                       string
	rootCert, tokenFile                                     string
	gateway, podName, podNamespace, podIP, account, node    string
	labels                                                  map[string]string
	certTTL, drain                                          time.Duration
	logLevel                                                string
	bootstrap                                               string
	adminAddress, metricsAddress, readinessAddress, certDir string
}

// bind adds what says who the waypoint is and where the control plane.
func (c *config) bind(f *pflag.FlagSet) {
	f.StringVar(&c.clusterID, "cluster-id", "Kubernetes", "the cluster's name")
	f.StringVar(&c.network, "network", "", "the waypoint's network")
	f.StringVar(&c.trustDomain, "trust-domain", "cluster.local", "the mesh's trust domain")
	f.StringVar(&c.xdsAddress, "xds-address", "", "the control plane, host:port (required)")
	f.StringVar(&c.caAddress, "ca-address", "", "the CA, host:port; empty is the control plane")
	f.StringVar(&c.serverName, "xds-server-name", "istiod.istio-system.svc", "the name in the control plane's certificate")
	f.StringVar(&c.rootCert, "root-cert", "", "the mesh's root certificates in PEM (required)")
	f.StringVar(&c.tokenFile, "token-file", "", "the pod's token, read anew for each call (required)")
	f.StringVar(&c.gateway, "gateway", "", "the name of the Gateway that this waypoint is of (required)")
	f.StringVar(&c.podName, "pod-name", "", "the waypoint's own pod, as its token says (required)")
	f.StringVar(&c.podNamespace, "pod-namespace", "", "the pod's namespace (required)")
	f.StringVar(&c.podIP, "pod-ip", "", "the pod's address")
	f.StringVar(&c.account, "service-account", "", "the pod's service account; empty is the Gateway's name")
	f.StringVar(&c.node, "node", "", "the node that it runs on")
	f.StringToStringVar(&c.labels, "labels", nil, "the pod's labels, as key=value,key=value")
	f.DurationVar(&c.certTTL, "cert-ttl", 24*time.Hour, "the life of certificates to ask for; our CA gives 24h at most")
	f.StringVar(&c.certDir, "cert-dir", "", "certificates and keys over a restart; must be a tmpfs; empty keeps none")
	f.StringVar(&c.logLevel, "log-level", "info", "debug, info, warn or error")
}

// bindServing adds what only the proxy itself has.
func (c *config) bindServing(f *pflag.FlagSet) {
	f.StringVar(&c.bootstrap, "bootstrap", "", "serve by this file in the form of Envoy's bootstrap, without a mesh")
	f.StringVar(&c.adminAddress, "admin-address", "localhost:15000", "config_dump, clusters, stats, log level, pprof; keep it on loopback")
	f.StringVar(&c.metricsAddress, "metrics-address", "[::]:15020", "metrics")
	f.StringVar(&c.readinessAddress, "readiness-address", "[::]:15021", "readiness")
	f.DurationVar(&c.drain, "drain", 30*time.Second, "how long connections may go on when the waypoint is stopped")
}

// complete checks the command line as a whole.
func (c *config) complete() error {
	var errs []error
	for _, required := range []struct{ flag, value string }{
		{"--xds-address", c.xdsAddress}, {"--root-cert", c.rootCert}, {"--token-file", c.tokenFile},
		{"--gateway", c.gateway}, {"--pod-name", c.podName}, {"--pod-namespace", c.podNamespace},
	} {
		if required.value == "" {
			errs = append(errs, fmt.Errorf("%s is required", required.flag))
		}
	}
	if c.podIP != "" {
		if _, err := netip.ParseAddr(c.podIP); err != nil {
			errs = append(errs, fmt.Errorf("--pod-ip: %w", err))
		}
	}
	if c.caAddress == "" {
		c.caAddress = c.xdsAddress
	}
	if c.account == "" {
		c.account = c.gateway
	}
	return errors.Join(errs...)
}

// identity is who the waypoint is.
func (c *config) identity() mesh.Identity {
	return mesh.Identity{TrustDomain: c.trustDomain, Namespace: c.podNamespace, ServiceAccount: c.account}
}

// pod is what the control plane is told of the waypoint.
func (c *config) pod() xds.Waypoint {
	w := xds.Waypoint{
		Pod: c.podName, Namespace: c.podNamespace, ServiceAccount: c.account, Gateway: c.gateway, Node: c.node,
		ClusterID: c.clusterID, Network: c.network, MeshID: c.trustDomain, Labels: c.labels, Version: telemetry.Version,
	}
	if c.podIP != "" {
		w.Addresses = []string{c.podIP}
	}
	return w
}
