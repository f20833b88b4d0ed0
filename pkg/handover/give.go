package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sockets are the listeners of one pod, by its network namespace's cookie.
type Sockets struct {
	Cookie uint64
	// FDs are closed once they are sent.
	FDs []int
}

// message is one packet on the socket. What a version does not know of it is
// ignored, so each says what it can before the other counts on it.
type message struct {
	Cookie uint64 `json:"cookie,omitempty"`
	// Last ends the pods.
	Last bool `json:"last,omitempty"`
	// Taken is what the next agent says when it serves; Bye what the first answers
	// when it has let go.
	Taken bool   `json:"taken,omitempty"`
	Bye   bool   `json:"bye,omitempty"`
	Error string `json:"error,omitempty"`
	// Connections says beside Taken that the next agent goes on with connections, and
	// beside Bye that the first hands some over.
	Connections bool `json:"connections,omitempty"`
	// Connection is one of them, with its sockets; Answer says whether it is taken.
	Connection *connection `json:"connection,omitempty"`
	Answer     *answer     `json:"answer,omitempty"`
}

// Owner is the agent that has the node.
type Owner interface {
	// Freeze lets nothing change any more and returns the pods' listeners.
	Freeze() ([]Sockets, error)
	// Thaw goes on: the next agent has failed.
	Thaw()
	// End lets go of all that one agent alone may have, the lock last.
	End()
	// Carry is called after End if the next agent goes on with connections. It returns
	// soon, and closes g when there are no more.
	Carry(g *Giver)
}

// errGone says that there is nobody at the other end any more.
var errGone = errors.New("the other agent is gone")

// Give waits at path for the next agent until ctx ends, or the node was handed over:
// then it returns nil. A next one that takes longer than patience to get ready is told
// that the node stays with its owner.
func Give(ctx context.Context, path string, patience time.Duration, o Owner) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("handover: %w", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	l.SetUnlinkOnClose(false) // it may be the next agent's by then
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("handover: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("handover: %w", err)
		}
		if err := trusted(c); err != nil {
			_ = send(c, message{Error: err.Error()}, nil)
			_ = c.Close()
			continue
		}
		if give(ctx, c, patience, o) {
			return nil
		}
	}
}

// give reports whether the node was handed over. It closes c, or gives it to o.
func give(ctx context.Context, c *net.UnixConn, patience time.Duration, o Owner) bool {
	kept := false
	defer func() {
		if !kept {
			_ = c.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(patience))
	pods, err := o.Freeze()
	if err != nil {
		_ = send(c, message{Error: err.Error()}, nil)
		o.Thaw()
		return false
	}
	for _, p := range pods {
		if err == nil {
			err = send(c, message{Cookie: p.Cookie}, p.FDs)
		}
		for _, fd := range p.FDs {
			_ = unix.Close(fd)
		}
	}
	if err == nil {
		err = send(c, message{Last: true}, nil)
	}
	var m message
	if err == nil {
		if m, _, err = receive(c); err == nil && !m.Taken {
			err = errors.New("the next agent says something else")
		}
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = c.SetDeadline(time.Now().Add(asking))
			_ = send(c, message{Error: fmt.Sprintf("it has waited %s for this one to be ready", patience)}, nil)
		}
		_ = c.Close() // whatever the next agent says from here on is too late
		o.Thaw()
		return false
	}
	o.End()
	err = send(c, message{Bye: true, Connections: m.Connections}, nil) // it sees the lock anyway
	if m.Connections && err == nil && stop() {
		kept = true
		o.Carry(newGiver(c))
	}
	return true
}

// trusted returns an error unless root is at the other end, or who runs this process.
func trusted(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	var perr error
	if err := raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || perr != nil {
		return errors.Join(err, perr)
	}
	return trust(int(peer.Uid))
}

func trust(user int) error {
	if user != 0 && user != os.Geteuid() {
		return fmt.Errorf("the node is not handed over between this agent and user %d: want root", user)
	}
	return nil
}

func send(c *net.UnixConn, m message, fds []int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(b, rights, nil)
	return err
}

// receive returns a message and the files that came with it.
func receive(c *net.UnixConn) (m message, files []*os.File, err error) {
	var b, rights [4096]byte
	n, rn, _, _, err := c.ReadMsgUnix(b[:], rights[:])
	if errors.Is(err, io.EOF) {
		return m, nil, errGone
	}
	if err != nil {
		return m, nil, err
	}
	controls, err := unix.ParseSocketControlMessage(rights[:rn])
	if err != nil {
		return m, nil, err
	}
	for _, control := range controls {
		fds, err := unix.ParseUnixRights(&control)
		if err != nil {
			return m, files, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "socket"))
		}
	}
	return m, files, json.Unmarshal(b[:n], &m)
}
