package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// listen opens the API server's socket and takes the one it was started with, which
// may belong to another network namespace: a test reaches the server from outside.
func listen(address string, port int, inherit bool) (net.Listener, error) {
	var all []net.Listener
	if port != 0 {
		l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("API server: %w", err)
		}
		all = append(all, l)
	}
	if inherit {
		l, err := net.FileListener(os.NewFile(3, "listener"))
		if err != nil {
			return nil, fmt.Errorf("inherited socket: %w", err)
		}
		all = append(all, l)
	}
	switch len(all) {
	case 0:
		return nil, errors.New("-port or -inherit is needed")
	case 1:
		return all[0], nil
	}
	return merge(all), nil
}

// merged accepts on several sockets as if they were one; its address is the first's.
type merged struct {
	net.Listener
	others   []net.Listener
	accepted chan net.Conn
	failed   chan error
}

func merge(all []net.Listener) *merged {
	m := &merged{Listener: all[0], others: all[1:], accepted: make(chan net.Conn), failed: make(chan error, len(all))}
	for _, l := range all {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					m.failed <- err
					return
				}
				m.accepted <- c
			}
		}()
	}
	return m
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case c := <-m.accepted:
		return c, nil
	case err := <-m.failed:
		return nil, err
	}
}

func (m *merged) Close() error {
	err := m.Listener.Close()
	for _, l := range m.others {
		err = errors.Join(err, l.Close())
	}
	return err
}
