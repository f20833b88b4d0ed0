package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// message is one packet on the socket.
type message struct {
	Cookie uint64 `json:"cookie,omitempty"`
	// Last ends the pods.
	Last bool `json:"last,omitempty"`
	// Taken is what the next agent says when it serves; Bye what the first answers
	// when it has let go.
	Taken bool   `json:"taken,omitempty"`
	Bye   bool   `json:"bye,omitempty"`
	Error string `json:"error,omitempty"`
}

// Owner is the agent that has the node.
type Owner interface {
	// Freeze lets nothing change any more and returns the pods' listeners.
	Freeze() ([]Sockets, error)
	// Thaw goes on: the next agent has failed.
	Thaw()
	// End lets go of all that one agent alone may have, the lock last.
	End()
}

// taking bounds how long the next agent may take to get ready.
const taking = 2 * time.Minute

// Give waits at path for the next agent until ctx ends, or the node was handed over:
// then it returns nil.
func Give(ctx context.Context, path string, o Owner) error {
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
		done := give(ctx, c, o)
		_ = c.Close()
		if done {
			return nil
		}
	}
}

// give reports whether the node was handed over.
func give(ctx context.Context, c *net.UnixConn, o Owner) bool {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(taking))
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
	if err == nil {
		var m message
		if m, _, err = receive(c); err == nil && !m.Taken {
			err = errors.New("the next agent says something else")
		}
	}
	if err != nil {
		o.Thaw()
		return false
	}
	o.End()
	_ = send(c, message{Bye: true}, nil) // it sees the lock anyway
	return true
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
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, errors.New("the other agent is gone")
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
			files = append(files, os.NewFile(uintptr(fd), "listener"))
		}
	}
	return m, files, json.Unmarshal(b[:n], &m)
}
