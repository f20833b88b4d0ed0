package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/lab/dns"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// hostname is the pod's name for itself.
func (p *pod) hostname() string {
	if p.spec.Hostname != "" {
		return p.spec.Hostname
	}
	name := p.key.Name
	if len(name) > 63 {
		name = name[:63]
	}
	return name
}

// writeFiles writes what the pod sees in place of the machine's files.
func (w *worker) writeFiles() error {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	p := w.p
	var resolv, hosts strings.Builder
	for _, a := range p.node.host.Gateways() {
		fmt.Fprintf(&resolv, "nameserver %s\n", a)
	}
	fmt.Fprintf(&resolv, "search %[1]s.svc.%[2]s svc.%[2]s %[2]s\noptions ndots:5\n", p.key.Namespace, dns.Domain)
	hosts.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range p.addrs {
		fmt.Fprintf(&hosts, "%s\t%s\n", a, p.hostname())
	}
	for _, alias := range p.spec.HostAliases {
		fmt.Fprintf(&hosts, "%s\t%s\n", alias.IP, strings.Join(alias.Hostnames, " "))
	}
	for name, text := range map[string]string{"resolv.conf": resolv.String(), "hosts": hosts.String()} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// surroundings is a sandbox of the pod, without a program.
func (w *worker) surroundings() sandbox.Spec {
	spec := sandbox.Spec{
		NetNS: w.netns, Cgroup: w.cgroup, Hostname: w.p.hostname(),
		Files: map[string]string{
			"/etc/resolv.conf": filepath.Join(w.dir, "resolv.conf"),
			"/etc/hosts":       filepath.Join(w.dir, "hosts"),
		},
		// Pods are not trusted with the lab's sockets and tokens, nor with other
		// pods' namespaces.
		Detach: []string{netns.Dir},
	}
	if w.hasVolumes() {
		spec.Dirs = map[string]string{runDir: w.volumesDir()}
	} else {
		spec.Hide = []string{runDir}
	}
	return spec
}
