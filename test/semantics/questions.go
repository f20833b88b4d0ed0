package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

type question struct {
	name string
	ask  func(server netip.AddrPort) string
}

var questions = []question{
	{"echo", askEcho},
	{"server speaks first", askServerFirst},
	{"half-close, 10 MB both ways", askHalfClose},
	{"response after half-close", askDigest},
	{"nonblocking connect", askNonblocking},
	{"names of the ends", askNames},
	{"source address at the server", askPeer},
	{"server aborts", func(s netip.AddrPort) string { return readEnd(s, "reset") }},
	{"server closes with unread data", func(s netip.AddrPort) string { return readEnd(s, "unread") }},
	{"client aborts", func(s netip.AddrPort) string { return clientEnd(s, "abort") }},
	{"client closes", func(s netip.AddrPort) string { return clientEnd(s, "close") }},
	{"MSG_WAITALL", askWaitAll},
	{"SO_RCVLOWAT", askLowWater},
	{"MSG_FASTOPEN", askFastOpen},
	{"bound source address", func(s netip.AddrPort) string { return askBound(s, false) }},
	{"bound source address and port", func(s netip.AddrPort) string { return askBound(s, true) }},
	{"IPv4-mapped socket", askMapped},
	{"splice from the socket", askSplice},
	{"sendfile to the socket", askSendfile},
	{"backpressure", askBackpressure},
	{"1,000 short connections", askShort},
	{"refused port", askRefused},
	{"out-of-band byte", askOutOfBand},
	{"MPTCP socket", askMPTCP},
	{"TCP_INFO bytes acked", askInfo},
}

// open connects with the command "mode argument" already sent.
func open(server netip.AddrPort, mode string, argument any) *net.TCPConn {
	c, err := net.Dial("tcp", server.String())
	must(err, "connect")
	_, err = fmt.Fprintf(c, "%s %v\n", mode, argument)
	must(err, "write")
	must(c.SetDeadline(time.Now().Add(askTimeout)), "deadline")
	return c.(*net.TCPConn)
}

func readAll(c io.Reader) string {
	b, err := io.ReadAll(c)
	must(err, "read")
	return string(b)
}

func same(got, want string) string {
	if got == want {
		return "ok"
	}
	if len(got) > 80 {
		got = got[:80] + "..."
	}
	return fmt.Sprintf("got %q", got)
}

func askEcho(s netip.AddrPort) string {
	c := open(s, "echo", 0)
	defer c.Close()
	_, err := io.WriteString(c, "hello")
	must(err, "write")
	must(c.CloseWrite(), "half-close")
	return same(readAll(c), "hello")
}

func askServerFirst(s netip.AddrPort) string {
	c, err := net.Dial("tcp", netip.AddrPortFrom(s.Addr(), s.Port()+1).String())
	must(err, "connect")
	defer c.Close()
	must(c.SetDeadline(time.Now().Add(askTimeout)), "deadline")
	b := make([]byte, 12)
	_, err = io.ReadFull(c, b)
	must(err, "read")
	return same(string(b), "220 welcome\n")
}

func askHalfClose(s netip.AddrPort) string {
	const size = 10 << 20
	c := open(s, "both", size)
	defer c.Close()
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := io.Copy(c, pattern(size)); err == nil {
			_ = c.CloseWrite()
		}
	})
	got := digestOf(io.LimitReader(c, size))
	rest := readAll(c)
	group.Wait()
	want := digestOf(pattern(size))
	return same(got+rest, want+want)
}

func askDigest(s netip.AddrPort) string {
	c := open(s, "digest", 0)
	defer c.Close()
	_, err := io.Copy(c, pattern(100_000))
	must(err, "write")
	must(c.CloseWrite(), "half-close")
	return same(readAll(c), digestOf(pattern(100_000)))
}

func askPeer(s netip.AddrPort) string {
	c := open(s, "peer", 0)
	defer c.Close()
	own := netip.MustParseAddrPort(c.LocalAddr().String()).Addr().Unmap().String()
	return same(readAll(c), own)
}

// readEnd is how the client's read ends.
func readEnd(s netip.AddrPort, mode string) string {
	c := open(s, mode, 0)
	defer c.Close()
	// The end may come before the write, which then hears of it.
	if _, err := io.WriteString(c, "more than the server reads"); err != nil {
		return kind(err)
	}
	_, err := io.ReadAll(c)
	return kind(err)
}

// clientEnd is how the server's read ends.
func clientEnd(s netip.AddrPort, how string) string {
	key := fmt.Sprint(how, os.Getpid(), time.Now().UnixNano())
	c := open(s, "watch", key)
	_, err := io.ReadFull(c, make([]byte, 1))
	must(err, "read")
	if how == "abort" {
		must(c.SetLinger(0), "linger")
	}
	must(c.Close(), "close")
	asked := open(s, "seen", key)
	defer asked.Close()
	return readAll(asked)
}

func askShort(s netip.AddrPort) string {
	want := digestOf(pattern(1000))
	for i := range 1000 {
		c := open(s, "source", 1000)
		got := digestOf(c)
		c.Close()
		if got != want {
			return fmt.Sprintf("connection %d: other bytes", i)
		}
	}
	return "ok"
}

// askRefused is the error of a port that nobody listens on, at connect or at the
// first use, whichever hears of it.
func askRefused(s netip.AddrPort) string {
	c, err := net.Dial("tcp", netip.AddrPortFrom(s.Addr(), s.Port()+2).String())
	if err != nil {
		return kind(err)
	}
	defer c.Close()
	must(c.SetDeadline(time.Now().Add(askTimeout)), "deadline")
	_, err = io.ReadAll(c)
	return kind(err)
}

func askBackpressure(s netip.AddrPort) string {
	c := open(s, "stall", 0)
	defer c.Close()
	raw, err := c.SyscallConn()
	must(err, "raw socket")
	chunk := make([]byte, 64<<10)
	sent := 0
	var last time.Time
	must(raw.Write(func(fd uintptr) bool {
		for last = time.Now(); time.Since(last) < time.Second; {
			n, err := unix.SendmsgN(int(fd), chunk, nil, nil, unix.MSG_DONTWAIT)
			if err == nil {
				sent, last = sent+n, time.Now()
				if sent > 256<<20 {
					return true
				}
				continue
			}
			pause(5 * time.Millisecond)
		}
		return true
	}), "write")
	if sent > 64<<20 {
		return fmt.Sprintf("the sender was never stopped: %d MiB taken", sent>>20)
	}
	return "ok"
}
