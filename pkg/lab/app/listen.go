package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// PortsVariable is how the lab tells a program of its container's ports, as
// "name/protocol/port" separated by commas.
const PortsVariable = "FAIRLEAD_PORTS"

// port is one that a program should serve.
type port struct {
	name, protocol string
	number         uint16
}

func parsePorts(s string) ([]port, error) {
	var out []port
	for field := range strings.SplitSeq(s, ",") {
		if field == "" {
			continue
		}
		parts := strings.Split(field, "/")
		if len(parts) != 3 {
			return nil, fmt.Errorf("%s: %q: want name/protocol/port", PortsVariable, field)
		}
		n, err := strconv.ParseUint(parts[2], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", PortsVariable, field, err)
		}
		out = append(out, port{parts[0], strings.ToLower(parts[1]), uint16(n)})
	}
	return out, nil
}

// httpPort is where a program with one HTTP port listens.
func httpPort(env Env, usual uint16) (uint16, error) {
	ports, err := parsePorts(env.Getenv(PortsVariable))
	if err != nil {
		return 0, err
	}
	for _, p := range ports {
		if p.protocol == "tcp" {
			return p.number, nil
		}
	}
	return usual, nil
}

// How long a server that was told to end still accepts, for clients that have not
// heard of it yet, and then waits for what it is serving.
const (
	lameDuck = 300 * time.Millisecond
	drain    = 2 * time.Second
)

// serveHTTP serves until ctx ends, then drains.
func serveHTTP(ctx context.Context, number uint16, h http.Handler) error {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(int(number)))
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 30 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(l) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	wait(end, lameDuck)
	err = srv.Shutdown(end)
	if errors.Is(err, context.DeadlineExceeded) {
		err = srv.Close()
	}
	<-failed
	return err
}

// serveConns hands each connection to serve, in a goroutine of its own, until
// ctx ends.
func serveConns(ctx context.Context, l net.Listener, serve func(net.Conn)) error {
	var live sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		wait(context.Background(), lameDuck)
		_ = l.Close()
	})
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil {
				return err
			}
			// Connections that never end would keep the process: it ends with its
			// pod, and the kernel closes them.
			done := make(chan struct{})
			go func() { live.Wait(); close(done) }()
			select {
			case <-done:
			case <-time.After(drain):
			}
			return nil
		}
		live.Go(func() { serve(c) })
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// hostname is the pod's name.
func hostname() string {
	h, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return h
}
