package cluster

import (
	"maps"
	"slices"
)

// EDSNames are the service names that clusters take their endpoints by, sorted.
func (m *Manager) EDSNames() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.uses))
}
