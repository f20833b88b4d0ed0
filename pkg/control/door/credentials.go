package door

import (
	"context"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/fairlead-mesh/fairlead/pkg/lobby"
)

// Credentials are inner, of TLS, whose handshakes are a server's and begin with a turn.
func (d *Door) Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return entry{inner, d}
}

type entry struct {
	credentials.TransportCredentials
	door *Door
}

// Clone implements [credentials.TransportCredentials].
func (e entry) Clone() credentials.TransportCredentials {
	return entry{e.TransportCredentials.Clone(), e.door}
}

// known is what is proved of a connection, with its turn.
type known struct {
	credentials.TLSInfo
	turn *Turn
}

// ServerHandshake implements [credentials.TransportCredentials].
func (e entry) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), longestQueue)
	defer cancel()
	turn, err := e.door.wait(ctx, who{from: lobby.Address(raw.RemoteAddr().String())})
	if err != nil {
		return nil, nil, err
	}
	if gone(raw) {
		turn.End()
		return nil, nil, io.EOF
	}
	// A slow peer keeps its connection, not its turn.
	silence := time.AfterFunc(longestSilence, turn.abandon)
	if err := raw.SetDeadline(time.Now().Add(longestHandshake)); err != nil {
		turn.abandon()
		return nil, nil, err
	}
	conn, info, err := e.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		silence.Stop()
		turn.abandon()
		return nil, nil, err
	}
	proved, ok := info.(credentials.TLSInfo)
	if !ok {
		turn.abandon()
		return nil, nil, fmt.Errorf("door: %T is not of TLS", info)
	}
	return guest{conn, turn}, known{proved, turn}, nil
}

// guest is a connection that is in.
type guest struct {
	net.Conn
	turn *Turn
}

// Close ends the turn too, unless a stream has it.
func (g guest) Close() error {
	g.turn.abandon()
	return g.Conn.Close()
}

// Begin is the turn of a stream: that of its connection, if it is the first, or another
// that it waits for until ctx ends.
func (d *Door) Begin(ctx context.Context) (*Turn, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return d.wait(ctx, who{inside: true})
	}
	if k, ok := p.AuthInfo.(known); ok && k.turn.claim() {
		return k.turn, nil
	}
	return d.wait(ctx, who{inside: true, from: lobby.Address(p.Addr.String())})
}

// Pass ends the turn of a call's connection: it asks for nothing that takes one.
func Pass(ctx context.Context) {
	if p, ok := peer.FromContext(ctx); ok {
		if k, ok := p.AuthInfo.(known); ok {
			k.turn.abandon()
		}
	}
}

// gone tells whether a peer has closed its end.
func gone(conn net.Conn) bool {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	if err := raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		closed = err == nil && info.State != unix.BPF_TCP_ESTABLISHED
	}); err != nil {
		return true
	}
	return closed
}
