package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// The server's first line from a client is "MODE ARGUMENT". What it saw of a
// connection is kept under the argument for the mode "seen".
type server struct {
	mu   sync.Mutex
	seen map[string]string
}

func serve(address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	s := &server{seen: map[string]string{}}
	first, err := net.Listen("tcp", netip.AddrPortFrom(at.Addr(), at.Port()+1).String())
	if err != nil {
		return err
	}
	go accept(first, func(c *net.TCPConn) {
		defer c.Close()
		fmt.Fprintf(c, "220 welcome\n")
		_, _ = io.Copy(io.Discard, c) // until the client is done
	})
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("serving on", l.Addr())
	accept(l, s.handle)
	return nil
}

func accept(l net.Listener, handle func(*net.TCPConn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go handle(c.(*net.TCPConn))
	}
}

func (s *server) handle(c *net.TCPConn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 16) // small: what follows the command stays in the socket
	line, err := in.ReadString('\n')
	if err != nil {
		return
	}
	mode, argument, _ := strings.Cut(strings.TrimSpace(line), " ")
	n, _ := strconv.Atoi(argument)
	switch mode {
	case "echo":
		_, _ = io.Copy(c, in)
		_ = c.CloseWrite()
	case "source":
		_, _ = io.Copy(c, pattern(n))
	case "both": // sends n bytes while it reads to the end, then the digest of what it read
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = io.Copy(c, pattern(n))
		}()
		digest := digestOf(in)
		<-sent
		fmt.Fprint(c, digest)
	case "digest": // the client half-closes, then hears
		fmt.Fprint(c, digestOf(in))
	case "reset": // an abort: RST
		_ = c.SetLinger(0)
	case "unread": // close with unread data: RST
		pause(200 * time.Millisecond) // until there is something to leave unread
	case "parts": // n bytes in ten parts
		for range 10 {
			_, _ = io.Copy(c, pattern(n/10))
			pause(20 * time.Millisecond)
		}
	case "watch": // reads until the connection ends, and remembers how
		fmt.Fprint(c, "r")
		_, err := io.Copy(io.Discard, in)
		s.remember(argument, kind(err))
	case "seen":
		fmt.Fprint(c, s.wait(argument))
	case "stall": // reads nothing until the client is gone or a minute is over
		pause(time.Minute)
	case "peer":
		fmt.Fprint(c, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr().Unmap())
	}
}

// pause is the server's own pace, not a wait for a state.
func pause(d time.Duration) { <-time.After(d) }

func (s *server) remember(key, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen[key] = what
}

func (s *server) wait(key string) string {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); pause(10 * time.Millisecond) {
		s.mu.Lock()
		what, ok := s.seen[key]
		s.mu.Unlock()
		if ok {
			return what
		}
	}
	return "nothing"
}

// kind names how a read ended.
func kind(err error) string {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return "FIN"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "RST" // EPIPE: a write after it
	case errors.Is(err, syscall.ECONNREFUSED):
		return "ECONNREFUSED"
	}
	return err.Error()
}

// pattern is n bytes that both sides can make.
func pattern(n int) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), int64(n))
}

func digestOf(r io.Reader) string {
	h := sha256.New()
	_, _ = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil))
}
