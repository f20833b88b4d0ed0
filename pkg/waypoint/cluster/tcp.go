package cluster

import (
	"sync/atomic"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// tcpConn is a TCP proxy's connection, which is counted until it is closed.
type tcpConn struct {
	codec.Conn
	host     *Host
	priority Priority
	over     atomic.Bool
}

// Close closes the connection.
func (t *tcpConn) Close() error {
	t.release()
	return t.Conn.Close()
}

// Abort resets the connection.
func (t *tcpConn) Abort() {
	t.release()
	t.Conn.Abort()
}

// Unwrap is the connection itself, for who relays.
func (t *tcpConn) Unwrap() codec.Conn { return t.Conn }

func (t *tcpConn) release() {
	if t.over.Swap(true) {
		return
	}
	c := t.host.cluster
	c.breakers[t.priority].connections.Add(-1)
	t.host.disconnected()
	t.host.active.Add(-1)
}
