package ztunnel

import (
	"net"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Until the node is this agent's, connections are another's that has the same listeners:
// none is taken from it, and those that wait are taken then.
func TestConnectionsAreAnothersUntilTheNodeIsOurs(t *testing.T) {
	w := newWorld(t)
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("a", 1)}})
	accept := make(chan struct{})
	o := w.options
	o.Accept = accept
	sockets := newFakeSockets(t, w.addr(1))
	w.startWith(o, "a", 1, sockets)
	dial := func() {
		t.Helper()
		for _, l := range []net.Listener{sockets.in, sockets.outbound, sockets.tunnel} {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
		}
	}
	for range 20 {
		dial()
		for _, l := range []net.Listener{sockets.in, sockets.outbound, sockets.tunnel} {
			c, err := l.Accept() // as the other agent does
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	dial()
	close(accept)
	pod := w.pods["a"]
	eventually(t, "those that wait are taken", func() bool {
		return pod.server.Active() == 1 && w.metric("istio_tcp_connections_opened_total", nil) >= 1
	})
}
