package app

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// banner is what a server-first port says before it listens.
const banner = "220 fairlead echo ready\r\n"

// numbers is a flag that lists ports.
type numbers []uint16

func (n *numbers) String() string { return fmt.Sprint(*n) }

// Set implements flag.Value: one port or several, separated by commas.
func (n *numbers) Set(s string) error {
	for field := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseUint(field, 10, 16)
		if err != nil {
			return err
		}
		*n = append(*n, uint16(v))
	}
	return nil
}

type echoPorts struct{ auto, tcp, banner, udp numbers }

// runEcho serves the container's ports: TCP ports answer HTTP to who speaks HTTP
// and send everything else back; those named tcp-... send everything back; those
// named banner-... or server-first-... speak first; UDP ports send each datagram
// back. Without ports it serves 8080 (TCP) and 8080 (UDP).
func runEcho(ctx context.Context, env Env) error {
	var ports echoPorts
	flags := flag.NewFlagSet("echo", flag.ContinueOnError)
	flags.SetOutput(env.Stderr)
	flags.Var(&ports.auto, "http", "ports that answer HTTP, and echo what is not HTTP")
	flags.Var(&ports.tcp, "tcp", "ports that echo bytes")
	flags.Var(&ports.banner, "banner", "ports where the server speaks first, then echoes")
	flags.Var(&ports.udp, "udp", "ports that echo datagrams")
	if err := flags.Parse(env.Args); err != nil {
		return err
	}
	if flags.NFlag() == 0 {
		if err := ports.declared(env.Getenv(PortsVariable)); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	tcp := func(list numbers, serve func(net.Conn)) error {
		for _, n := range list {
			l, err := net.Listen("tcp", ":"+strconv.Itoa(int(n)))
			if err != nil {
				return err
			}
			group.Go(func() error { return serveConns(ctx, l, serve) })
		}
		return nil
	}
	h := &echoHTTP{env: env, conns: newConnListener()}
	err := errors.Join(tcp(ports.auto, h.sniff), tcp(ports.tcp, echoBytes), tcp(ports.banner, func(c net.Conn) {
		if _, err := io.WriteString(c, banner); err == nil {
			echoBytes(c)
		}
	}))
	if err != nil {
		return err
	}
	for _, n := range ports.udp {
		c, err := net.ListenPacket("udp", ":"+strconv.Itoa(int(n)))
		if err != nil {
			return err
		}
		group.Go(func() error { return echoDatagrams(ctx, c) })
	}
	group.Go(func() error { return h.serve(ctx) })
	return group.Wait()
}

func (p *echoPorts) declared(variable string) error {
	list, err := parsePorts(variable)
	if err != nil {
		return err
	}
	if len(list) == 0 {
		p.auto, p.udp = numbers{8080}, numbers{8080}
	}
	for _, d := range list {
		switch {
		case d.protocol == "udp":
			p.udp = append(p.udp, d.number)
		case strings.HasPrefix(d.name, "banner"), strings.HasPrefix(d.name, "server-first"):
			p.banner = append(p.banner, d.number)
		case strings.HasPrefix(d.name, "tcp"):
			p.tcp = append(p.tcp, d.number)
		default:
			p.auto = append(p.auto, d.number)
		}
	}
	return nil
}

// echoBytes sends everything back, and the end of it.
func echoBytes(c net.Conn) {
	defer c.Close()
	if _, err := io.Copy(c, c); err != nil {
		return
	}
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func echoDatagrams(ctx context.Context, c net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		_, _ = c.WriteTo(buf[:n], from) // a datagram may be lost
	}
}

// sniff tells HTTP from other bytes by the first few of them.
func (h *echoHTTP) sniff(c net.Conn) {
	r := bufio.NewReader(c)
	peeked := &peekedConn{Conn: c, r: r}
	if looksLikeHTTP(r) {
		h.conns.hand(peeked)
		return
	}
	echoBytes(peeked)
}

// looksLikeHTTP waits for no more bytes than it needs to say no.
func looksLikeHTTP(r *bufio.Reader) bool {
	const longest = 8
	for n := 1; n <= longest; n++ {
		head, err := r.Peek(n)
		if err != nil {
			return false
		}
		possible := false
		for _, m := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodHead, http.MethodDelete, http.MethodOptions, http.MethodPatch, "PRI"} {
			m += " "
			if string(head) == m {
				return true
			}
			possible = possible || strings.HasPrefix(m, string(head))
		}
		if !possible {
			return false
		}
	}
	return false
}

// peekedConn is a connection of which some bytes were looked at.
type peekedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *peekedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite passes the end on.
func (c *peekedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// connListener is a listener that is handed its connections.
type connListener struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *connListener) hand(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *connListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr implements net.Listener.
func (l *connListener) Addr() net.Addr { return &net.TCPAddr{} }

// serve answers HTTP on the connections that sniff found.
func (h *echoHTTP) serve(ctx context.Context) error {
	var both http.Protocols
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	srv := &http.Server{Handler: h.mux(), ReadHeaderTimeout: 30 * time.Second, Protocols: &both, ConnContext: h.connContext}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.Background(), drain)
		defer cancel()
		wait(end, lameDuck)
		_ = srv.Shutdown(end)
	}()
	if err := srv.Serve(h.conns); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
