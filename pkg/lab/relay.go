package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// maxRelayed bounds the connections to another control plane: two per node.
const maxRelayed = 1024

// relayTo makes a control plane that runs anywhere the machine can reach appear
// where the lab's own would be. TLS goes through it untouched.
func (l *Lab) relayTo(address string, actor func(func(context.Context) error)) error {
	var listener net.Listener
	err := l.controlHost.NS().Do(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort("::", strconv.Itoa(controlPlanePort)))
		return err
	})
	if err != nil {
		return fmt.Errorf("make the way to the control plane: %w", err)
	}
	actor(func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
		defer stop()
		var conns sync.WaitGroup
		defer conns.Wait()
		slots := newSemaphore(maxRelayed)
		for slots.take(ctx) {
			c, err := listener.Accept()
			if err != nil {
				return nil //nolint:nilerror // it was closed because ctx ended
			}
			conns.Go(func() {
				defer slots.give()
				if err := relay(ctx, c, address); err != nil {
					l.log.Warn("the control plane was not reached", "address", address, "err", err)
				}
			})
		}
		return nil
	})
	return nil
}

func relay(ctx context.Context, c net.Conn, address string) error {
	defer c.Close()
	d := net.Dialer{Timeout: 5 * time.Second}
	up, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer up.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close(); _ = up.Close() })
	defer stop()
	done := make(chan struct{}, 2)
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // either end may go; gRPC comes again
		_ = to.(*net.TCPConn).CloseWrite()
		done <- struct{}{}
	}
	go one(up, c)
	go one(c, up)
	<-done
	<-done
	return nil
}
