package h2

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Field is one header field; names are in lower case.
type Field struct{ Name, Value string }

// Conn is an HTTP/2 connection.
type Conn struct {
	// Constant after Client or Server.
	nc      net.Conn
	config  Config
	client  bool
	handler func(*Stream) // of a server
	done    chan struct{} // closes when the connection is over
	br      *bufio.Reader

	// out is never taken while mu is held.
	out output

	// mu guards below.
	mu         sync.Mutex
	streams    map[uint32]*Stream
	nextID     uint32 // of our next stream (client)
	lastPeerID uint32 // of the peer's last stream (server)
	err        error
	goAway     bool // no new streams: the peer said so, or we did

	sendWindow    int64 // of the connection
	peerStream    int64 // the peer's initial stream window
	peerStreams   uint32
	settingsSeen  bool
	windowChanged *sync.Cond // on mu: more window, or the end

	// Owned by the reader.
	hdec     *hpack.Decoder
	resets   budget
	controls budget

	peerFrame atomic.Uint32 // the peer's limit of a payload

	unacked  atomic.Int64 // received bytes whose window was not given back
	buffered atomic.Int64 // received bytes that streams have not passed on
	pingSent atomic.Int64 // when an unanswered PING was sent, unix nanoseconds, or 0
}

func newConn(nc net.Conn, config Config, client bool, handler func(*Stream)) *Conn {
	config = config.withDefaults()
	c := &Conn{
		nc: nc, config: config, client: client, handler: handler, done: make(chan struct{}),
		br: readers.Get().(*bufio.Reader), streams: map[uint32]*Stream{}, nextID: 1,
		sendWindow: defaultWindow, peerStream: defaultWindow, peerStreams: 100,
		// A peer that opens and resets streams, or floods control frames, faster
		// than this is not doing work (CVE-2023-44487, CVE-2019-9512 and after).
		resets:   budget{rate: 200, burst: 1000},
		controls: budget{rate: 1000, burst: 5000},
	}
	c.br.Reset(nc)
	c.windowChanged = sync.NewCond(&c.mu)
	c.peerFrame.Store(minFrameSize)
	c.out.init()
	c.hdec = hpack.NewDecoder(4096, nil)
	c.hdec.SetMaxStringLength(int(config.MaxHeaderList))
	return c
}

// Client begins a connection on nc, which it owns from then on. It does not wait
// for the peer.
func Client(nc net.Conn, config Config) (*Conn, error) {
	c := newConn(nc, config, true, nil)
	if err := c.start([]byte(preface)); err != nil {
		nc.Close()
		return nil, err
	}
	go c.writeLoop()
	go c.readLoop()
	go c.keepAlive()
	return c, nil
}

// Server takes a connection on nc, which it owns, and calls handler in a
// goroutine of its own for each stream. It returns when the connection is over.
func Server(nc net.Conn, config Config, handler func(*Stream), started func(*Conn)) error {
	c := newConn(nc, config, false, handler)
	_ = nc.SetReadDeadline(time.Now().Add(c.config.PrefaceTimeout))
	var got [len(preface)]byte
	if _, err := io.ReadFull(c.br, got[:]); err != nil {
		nc.Close()
		return err
	}
	if string(got[:]) != preface {
		nc.Close()
		return connError(CodeProtocol, "no HTTP/2 preface")
	}
	if err := c.start(nil); err != nil {
		nc.Close()
		return err
	}
	if started != nil {
		started(c)
	}
	go c.writeLoop()
	go c.keepAlive()
	c.readLoop()
	return c.Err()
}

// start writes the preface, the settings and the connection's window at once.
func (c *Conn) start(first []byte) error {
	b := first
	settings := []struct {
		id    uint16
		value uint32
	}{{3, c.config.MaxStreams}, {4, c.config.StreamWindow}, {5, c.config.MaxFrame}, {6, c.config.MaxHeaderList}}
	if c.client {
		settings = append(settings, struct {
			id    uint16
			value uint32
		}{2, 0}) // no push
	}
	header := make([]byte, headerLen)
	putFrameHeader(header, 6*len(settings), frameSettings, 0, 0)
	b = append(b, header...)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, s.id)
		b = binary.BigEndian.AppendUint32(b, s.value)
	}
	putFrameHeader(header, 4, frameWindowUpdate, 0, 0)
	b = append(b, header...)
	b = binary.BigEndian.AppendUint32(b, c.config.ConnWindow-defaultWindow)
	_, err := c.nc.Write(b)
	return err
}

// Done closes when the connection is over.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err is why the connection is over, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Load is how many streams are open, and how many there may be; 0 of 0 when no
// new ones are taken.
func (c *Conn) Load() (open, limit int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.goAway || c.err != nil {
		return 0, 0
	}
	return len(c.streams), int(c.peerStreams)
}

// Close ends the connection and its streams at once.
func (c *Conn) Close() { c.fail(&ConnError{Code: CodeNo, Reason: "closed"}) }

// GoAway takes no new streams; the connection ends when the last one does.
func (c *Conn) GoAway() {
	c.mu.Lock()
	already := c.goAway || c.err != nil
	c.goAway = true
	last, empty := c.lastPeerID, len(c.streams) == 0
	c.mu.Unlock()
	if !already {
		_ = c.writeControl(frameGoAway, 0, 0, goAwayPayload(last, CodeNo)) // a full queue ends the connection as well
	}
	if empty {
		c.Close()
	}
}

func goAwayPayload(last uint32, code Code) []byte {
	payload := binary.BigEndian.AppendUint32(nil, last)
	return binary.BigEndian.AppendUint32(payload, uint32(code))
}

// fail ends the connection once; later reasons are not kept.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	c.goAway = true
	last := c.lastPeerID
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		streams = append(streams, s)
	}
	clear(c.streams)
	c.windowChanged.Broadcast()
	c.mu.Unlock()
	// The peer may not be reading: telling it is bounded, and not waited for by
	// whoever holds the writer's lock.
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	var ce *ConnError
	if errors.As(err, &ce) && !ce.Remote {
		frame := make([]byte, headerLen)
		putFrameHeader(frame, 8, frameGoAway, 0, 0)
		_, _ = c.nc.Write(append(frame, goAwayPayload(last, ce.Code)...)) // it is going anyway
	}
	c.failOutput(err)
	c.nc.Close()
	close(c.done)
	for _, s := range streams {
		s.end(err)
	}
}

// keepAlive sends PINGs and ends a connection whose peer does not answer.
func (c *Conn) keepAlive() {
	tick := time.NewTicker(c.config.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-c.done:
			return
		case now := <-tick.C:
			if sent := c.pingSent.Load(); sent != 0 {
				if now.Sub(time.Unix(0, sent)) >= c.config.PingTimeout {
					c.fail(&ConnError{Code: CodeNo, Reason: "keepalive PING was not answered"})
				}
				continue
			}
			c.pingSent.Store(now.UnixNano())
			if err := c.writeControl(framePing, 0, 0, []byte("fairlead")); err != nil {
				c.fail(err)
			}
		}
	}
}

// budget is a token bucket for what a peer may do.
type budget struct {
	rate, burst float64
	spent       float64
	at          time.Time
}

// take spends one and reports whether it was there.
func (b *budget) take() bool {
	now := time.Now()
	if !b.at.IsZero() {
		b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*b.rate)
	}
	b.at = now
	b.spent++
	return b.spent <= b.burst
}
