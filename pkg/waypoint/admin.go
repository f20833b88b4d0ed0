package waypoint

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/histogram"
	"github.com/fairlead-mesh/fairlead/pkg/xds"
)

// ListenerInfo is a listener for the admin page. Address is the zero value of an
// internal one.
type ListenerInfo struct {
	Name    string
	Address netip.AddrPort
}

// Listeners are those there are, by name.
func (e *Engine) Listeners() []ListenerInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []ListenerInfo
	for name, l := range e.listeners {
		info := ListenerInfo{Name: name}
		if l.socket != nil {
			info.Address = l.socket.Addr().(*net.TCPAddr).AddrPort()
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b ListenerInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// counting is a socket that counts what it accepts.
type counting struct {
	net.Listener
	accepted atomic.Uint64
}

func (c *counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.accepted.Add(1)
	}
	return conn, err
}

// Stats are the counters and gauges of listeners, of connection managers, and of what
// was taken and refused, in Envoy's names.
func (e *Engine) Stats() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]uint64{
		"listener_manager.total_listeners_active": uint64(len(e.listeners)),
		"listener_manager.lds.update_rejected":    e.refused(xds.ListenerType),
		"cluster_manager.cds.update_rejected":     e.refused(xds.ClusterType),
		"fairlead.config.refused":                 e.refusals,
		"fairlead.config.unknown_fields":          e.unknown,
		"fairlead.faults":                         e.guard.Caught(), // panics that ended an exchange alone
		"fairlead.config.refused_now":             e.refused(xds.ListenerType) + e.refused(xds.ClusterType) + e.refused(xds.RouteType) + e.refused(xds.EndpointType),
	}
	chains := uint64(0)
	for _, l := range e.listeners {
		if l.socket != nil {
			prefix := "listener." + strings.ReplaceAll(l.socket.Addr().String(), ":", "_") + "."
			out[prefix+"downstream_cx_total"] = l.socket.accepted.Load()
			if l.active != nil {
				out[prefix+"downstream_cx_active"] = uint64(max(l.active(), 0))
			}
		}
		for _, c := range l.chains {
			if c.slot.Chain().Refusal() != nil {
				chains++
			}
			if m := c.slot.Manager(); m != nil && m.StatPrefix != "" {
				for name, v := range m.Stats() {
					out[name] += v
				}
			}
		}
	}
	out["fairlead.filter_chains.refused"] = chains
	warnings := 0
	for _, r := range e.routes {
		warnings += len(r.warnings())
	}
	out["fairlead.config.warnings_now"] = uint64(warnings)
	return out
}

// Timings are the histograms of connection managers, in Envoy's names.
func (e *Engine) Timings() map[string]*histogram.Snapshot {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]*histogram.Snapshot{}
	for _, l := range e.listeners {
		for _, c := range l.chains {
			if m := c.slot.Manager(); m != nil && m.StatPrefix != "" {
				m.Timings(out)
			}
		}
	}
	return out
}

// refused is how many resources of a type are not in effect as they came.
func (e *Engine) refused(typeURL string) (n uint64) {
	for _, h := range e.held[typeURL] {
		if h.refused != nil {
			n++
		}
	}
	return n
}
