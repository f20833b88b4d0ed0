// Package unclean names the nodes that an uninstallation could not clean, and what to run
// on each. For pkg/install and cmd/node-agent; it imports the standard library alone.
package unclean

import (
	"fmt"
	"strings"
)

// Error names the nodes that an uninstallation did not clean: the mesh is out of the
// cluster, and there its pods stay captured, and so refused.
type Error struct {
	// Nodes are those that had no ready agent, in order.
	Nodes []string
	// Image is the agent's.
	Image string
}

// Error says what to do.
func (e *Error) Error() string {
	lines := []string{
		fmt.Sprintf("the mesh is out of the cluster, but %d nodes had no ready agent to clean them: %s.", len(e.Nodes), strings.Join(e.Nodes, ", ")),
		"Pods of the mesh stay captured there, and are refused; new ones are held back. When such a node is up, run",
	}
	for _, n := range e.Nodes {
		lines = append(lines, fmt.Sprintf("  kubectl debug node/%s --profile=sysadmin --image=%s -- node-agent uninstall --host=/host", n, e.Image))
	}
	return strings.Join(lines, "\n")
}
