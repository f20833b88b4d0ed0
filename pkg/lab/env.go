package lab

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/app"
)

// environment is what a container's process finds.
func (w *worker) environment(c *corev1.Container) []string {
	p := w.p
	env := map[string]string{
		// `fairlead app ...` works in every pod.
		"PATH":            filepath.Dir(w.lab.self) + ":" + os.Getenv("PATH"),
		"HOME":            "/root",
		"HOSTNAME":        p.hostname(),
		"POD_NAME":        p.key.Name,
		"POD_NAMESPACE":   p.key.Namespace,
		"VERSION":         p.labels["version"],
		app.PortsVariable: portsOf(c),
	}
	for _, e := range c.Env {
		if e.ValueFrom != nil && e.ValueFrom.ResourceFieldRef != nil {
			continue // a container's limits are not kept here, so that it has none to know
		}
		if e.ValueFrom != nil {
			env[e.Name] = p.field(e.ValueFrom.FieldRef.FieldPath)
			continue
		}
		env[e.Name] = expand(e.Value, env)
	}
	var out []string
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

func portsOf(c *corev1.Container) string {
	var out []string
	for _, p := range c.Ports {
		protocol := p.Protocol
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		out = append(out, fmt.Sprintf("%s/%s/%d", p.Name, protocol, p.ContainerPort))
	}
	return strings.Join(out, ",")
}

// field is a part of the pod's object by its path, as Kubernetes' downward API
// names them.
func (p *pod) field(path string) string {
	switch path {
	case "metadata.name":
		return p.key.Name
	case "metadata.namespace":
		return p.key.Namespace
	case "metadata.uid":
		return p.uid
	case "spec.nodeName":
		return p.node.name
	case "spec.serviceAccountName":
		return p.spec.ServiceAccountName
	case "status.hostIP":
		return p.node.addrs[0].Addr().String()
	case "status.podIP":
		return first(p.addrs)
	case "status.podIPs":
		return joinAddrs(p.addrs)
	}
	if key, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return p.labels[strings.TrimSuffix(key, "']")]
	}
	return ""
}

func joinAddrs(addrs []netip.Addr) string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return strings.Join(out, ",")
}

// expand replaces $(NAME) by the variable's value, as Kubernetes does; "$$" stands
// for "$", and what is not known stays.
func expand(s string, env map[string]string) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[1] == '$':
			b.WriteByte('$')
			s = s[2:]
			continue
		case s[1] == '(' && end > 0:
			if v, ok := env[s[2:end]]; ok {
				b.WriteString(v)
				s = s[end+1:]
				continue
			}
		}
		b.WriteByte('$')
		s = s[1:]
	}
}
