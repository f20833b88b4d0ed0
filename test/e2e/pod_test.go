package e2e

import (
	"net"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// inside is the network namespace of a pod, which is "namespace/name", for as long as
// the test runs.
func (l *lab) inside(t *testing.T, pod string) *netns.NS {
	t.Helper()
	ns, err := netns.Open(l.pod(t, pod).NetNS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// listenIn listens in a pod until the test ends.
func listenIn(t *testing.T, ns *netns.NS, address string) (l net.Listener) {
	t.Helper()
	if err := ns.Do(func() (err error) {
		l, err = net.Listen("tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dialFrom connects from a pod.
func dialFrom(ns *netns.NS, address string, timeout time.Duration) (c net.Conn, err error) {
	err = ns.Do(func() error {
		c, err = net.DialTimeout("tcp", address, timeout)
		return err
	})
	return c, err
}

// clusterIP is the first address of a service.
func (l *lab) clusterIP(t *testing.T, namespace, name string) string {
	t.Helper()
	for _, s := range l.view(t).Services {
		if s.Namespace == namespace && s.Name == name {
			return s.ClusterIPs[0]
		}
	}
	t.Fatalf("no service %s/%s", namespace, name)
	return ""
}
