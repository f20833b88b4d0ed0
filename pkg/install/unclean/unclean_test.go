package unclean

import (
	"strings"
	"testing"
)

// Each node is named, with what to run there.
func TestError(t *testing.T) {
	said := (&Error{Nodes: []string{"crowded", "down"}, Image: "hub/node-agent:1"}).Error()
	for _, want := range []string{"2 nodes", "crowded, down", "kubectl debug node/down --profile=sysadmin --image=hub/node-agent:1 -- node-agent uninstall --host=/host"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is not said: %s", want, said)
		}
	}
}
