package hcm

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// internalOnly are the fields by which a proxy that is trusted steers another;
// from anyone else they are taken away.
var internalOnly = map[string]bool{
	"x-envoy-retriable-status-codes": true, "x-envoy-retriable-header-names": true, "x-envoy-retry-on": true,
	"x-envoy-retry-grpc-on": true, "x-envoy-max-retries": true, "x-envoy-upstream-alt-stat-name": true,
	"x-envoy-upstream-rq-timeout-ms": true, "x-envoy-upstream-rq-per-try-timeout-ms": true,
	"x-envoy-upstream-rq-timeout-alt-response": true, "x-envoy-expected-rq-timeout-ms": true, "x-envoy-force-trace": true,
	"x-envoy-ip-tags": true, "x-envoy-original-url": true, "x-envoy-hedge-on-per-try-timeout": true, "x-envoy-internal": true,
}

// edgeOnly are taken away from those who come from outside.
var edgeOnly = map[string]bool{
	"x-envoy-decorator-operation": true, "x-envoy-downstream-service-cluster": true, "x-envoy-downstream-service-node": true,
	"x-envoy-original-path": true, "x-envoy-original-host": true,
}

// client notes who asks: the fields that say so are made or checked, and those that
// only a trusted proxy may send are taken away.
func (m *Manager) client(info *streaminfo.Info, r *message.Request) {
	scheme := "http"
	if info.TLS != nil && !info.Tunnelled {
		scheme = "https"
	}
	_, forwarded := r.Fields.Lookup("x-forwarded-for")
	remote := info.Remote.Addr()
	single := false
	if m.useRemoteAddress {
		single = !forwarded
		if m.trustedHops > 0 {
			if a, ok := hop(r.Fields, m.trustedHops-1); ok {
				remote, single = a, false
			}
		}
		if !m.skipXFFAppend {
			appendForwarded(r, info.Remote.Addr())
		}
		if m.trustedHops == 0 {
			r.Fields.Set("x-forwarded-proto", scheme)
		}
	} else if a, ok := hop(r.Fields, m.trustedHops); ok {
		v, _ := r.Fields.Joined("x-forwarded-for")
		remote, single = a, !strings.Contains(v, ",")
	}
	if p := r.Fields.Get("x-forwarded-proto"); p == "" {
		r.Fields.Set("x-forwarded-proto", scheme)
	}
	if m.scheme != "" {
		r.Scheme = m.scheme
		r.Fields.Set("x-forwarded-proto", m.scheme)
	}
	if m.forwardedPort && r.Fields.Get("x-forwarded-port") == "" {
		r.Fields.Set("x-forwarded-port", strconv.Itoa(int(info.Local.Port())))
	}
	if m.via != "" {
		appendVia(&r.Fields, m.via)
	}
	if remote != info.Remote.Addr() {
		info.Client = netip.AddrPortFrom(remote, 0)
	}
	internal := single && m.isInternal(remote)
	edge := !internal && m.useRemoteAddress
	m.sanitise(r, internal, edge)
	if internal {
		r.Fields.Set("x-envoy-internal", "true")
	} else if edge {
		r.Fields.Set("x-envoy-external-address", remote.String())
	}
	m.requestID(info, r, edge)
	m.clientCert(info, r)
}

// sanitise drops in one pass what the client may not say.
func (m *Manager) sanitise(r *message.Request, internal, edge bool) {
	kept := r.Fields[:0]
	for _, f := range r.Fields {
		if strings.HasPrefix(f.Name, "x-envoy-") && (!internal && internalOnly[f.Name] || edge && edgeOnly[f.Name] || f.Name == "x-envoy-internal") {
			continue
		}
		kept = append(kept, f)
	}
	r.Fields = kept
}

func (m *Manager) isInternal(a netip.Addr) bool {
	for _, p := range m.internal {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// hop is the nth address of X-Forwarded-For from its end.
func hop(fields message.Fields, n uint32) (netip.Addr, bool) {
	v, ok := fields.Joined("x-forwarded-for")
	if !ok {
		return netip.Addr{}, false
	}
	for ; ; n-- {
		i := strings.LastIndexByte(v, ',')
		if n == 0 {
			a, err := netip.ParseAddr(strings.TrimSpace(v[i+1:]))
			return a, err == nil
		}
		if i < 0 {
			return netip.Addr{}, false
		}
		v = v[:i]
	}
}

func appendVia(fields *message.Fields, name string) {
	if v, _ := fields.Joined("via"); v != "" {
		name = v + ", " + name
	}
	fields.Set("via", name)
}

func appendForwarded(r *message.Request, a netip.Addr) {
	if v, _ := r.Fields.Joined("x-forwarded-for"); v != "" {
		r.Fields.Set("x-forwarded-for", v+","+a.String())
		return
	}
	r.Fields.Set("x-forwarded-for", a.String())
}
