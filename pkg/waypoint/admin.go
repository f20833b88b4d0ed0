package waypoint

import (
	"cmp"
	"slices"
)

// ListenerInfo is a listener for the admin page.
type ListenerInfo struct{ Name, Address string }

// Listeners are those there are, by name.
func (e *Engine) Listeners() []ListenerInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []ListenerInfo
	for name, l := range e.listeners {
		address := "internal"
		if l.socket != nil {
			address = l.socket.Addr().String()
		}
		out = append(out, ListenerInfo{name, address})
	}
	slices.SortFunc(out, func(a, b ListenerInfo) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Stats are the counters of connection managers, in Envoy's names.
func (e *Engine) Stats() map[string]uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string]uint64{}
	for _, l := range e.listeners {
		for _, c := range l.chains {
			m := c.slot.Manager()
			if m == nil {
				continue
			}
			for name, v := range m.Stats() {
				out[name] += v
			}
		}
	}
	return out
}
