package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// writeConfig writes what containerd, kubelet, kube-proxy and the CNI plugins read.
func (n *Node) writeConfig(i int) error {
	families := n.cluster.options.familiesOf(i)
	listen := n.Address
	if n.cluster.options.Families == Dual {
		listen = "::" // both: kubelet has one address to listen on
	}
	values := strings.NewReplacer("$DIR", n.Dir, "$CLUSTER", n.cluster.Dir, "$NAME", n.Name, "$ADDRESS", n.Address, "$LISTEN", listen,
		"$HUB", families[0].hub, "$DNS", each(families, func(f family) string { return fmt.Sprintf("%q", f.hub) }),
		"$PODS", each(families, func(f family) string { return fmt.Sprintf(`[{"subnet": %q}]`, f.subnet(i)) }),
		"$ROUTES", each(families, func(f family) string { return fmt.Sprintf(`{"dst": %q}`, f.all) }),
		"$RANGE", each(families, func(f family) string { return f.pods }))
	cni := filepath.Join(n.Dir, "etc", "upper", "cni", "net.d")
	if err := os.MkdirAll(cni, 0o755); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	plugins := filepath.Join(n.Dir, "opt", "upper", "cni", "bin")
	if err := os.MkdirAll(plugins, 0o755); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := os.CopyFS(plugins, os.DirFS("/usr/lib/cni")); err != nil && !os.IsExist(err) {
		return fmt.Errorf("CNI plugins (Debian package containernetworking-plugins): %w", err)
	}
	for path, text := range map[string]string{
		filepath.Join(n.Dir, "containerd.toml"):             containerdConfig,
		filepath.Join(n.Dir, "kubelet.yaml"):                kubeletConfig,
		filepath.Join(n.Dir, "kube-proxy.yaml"):             proxyConfig,
		filepath.Join(cni, "10-bridge.conflist"):            bridgeConfig,
		filepath.Join(n.Dir, "etc", "upper", "resolv.conf"): "nameserver $HUB\n",
		filepath.Join(n.Dir, "etc", "upper", "hostname"):    "$NAME\n",
		filepath.Join(n.Dir, "etc", "upper", "hosts"):       "127.0.0.1 localhost\n$ADDRESS $NAME\n",
	} {
		if err := os.WriteFile(path, []byte(values.Replace(text)), 0o644); err != nil {
			return fmt.Errorf("configuration: %w", err)
		}
	}
	return nil
}

// The capability CAP_SYS_RESOURCE may be missing where tests run: then runc cannot
// lower oom_score_adj, and restrict_oom_score_adj keeps it from trying.
const containerdConfig = `version = 2
root = "$DIR/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
                    "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
[plugins."io.containerd.internal.v1.opt"]
  path = "$DIR/containerd-opt"
`

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: "$LISTEN"
tlsCertFile: $CLUSTER/$NAME.crt
tlsPrivateKeyFile: $CLUSTER/$NAME.key
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $CLUSTER/ca.crt}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
readOnlyPort: 0
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDomain: cluster.local
clusterDNS: [$DNS]
resolvConf: /etc/resolv.conf
syncFrequency: 10s
volumePluginDir: $DIR/volume-plugins
imageMinimumGCAge: 24h
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
nodeStatusUpdateFrequency: 4s
`

const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $CLUSTER/kube-proxy.kubeconfig}
hostnameOverride: $NAME
clusterCIDR: $RANGE
bindAddress: 127.0.0.1
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
nftables: {minSyncPeriod: 100ms, syncPeriod: 30s}
`

const bridgeConfig = `{
  "cniVersion": "1.0.0",
  "name": "bridge",
  "plugins": [
    {
      "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [$PODS], "routes": [$ROUTES]}
    }
  ]
}
`
