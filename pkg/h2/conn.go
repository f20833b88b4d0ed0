package h2

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is an HTTP/2 connection.
//
// Locks are taken in this order: a stream's mu, out.mu, mu.
type Conn struct {
	// Constant after Client or Server.
	nc      net.Conn
	config  Config
	client  bool
	handler func(*Stream) // of a server
	done    chan struct{} // closes when the connection is over

	out output

	// mu guards below.
	mu         sync.Mutex
	streams    map[uint32]*Stream
	nextID     uint32 // of our next stream (client)
	lastPeerID uint32 // of the peer's last stream (server)
	closed     closedStreams
	handling   int // handlers that run
	err        error
	goAway     bool // no new streams: the peer said so, or we did
	draining   bool // the peer was told to open no more

	sendWindow   int64     // of the connection
	blocked      []*Stream // that wait for window
	peerStream   int64     // the peer's initial stream window
	peerStreams  uint32
	peerConnect  bool // SETTINGS_ENABLE_CONNECT_PROTOCOL
	settingsSeen bool
	alive        *time.Timer // the next PING's

	// Owned by the reader.
	in        input
	dec       decoder
	block     []byte // of several frames
	resets    budget
	controls  budget
	firstSeen bool // the peer's first frame, its SETTINGS

	live      atomic.Int32  // len(streams)
	peerFrame atomic.Uint32 // the peer's limit of a payload
	unacked   atomic.Int64  // received bytes whose window was not given back
	buffered  atomic.Int64  // received bytes that streams have not passed on
	pingSent  atomic.Int64  // when an unanswered PING was sent, unix nanoseconds, or 0
}

func newConn(nc net.Conn, config Config, client bool, handler func(*Stream)) *Conn {
	config = config.withDefaults()
	c := &Conn{
		nc: nc, config: config, client: client, handler: handler, done: make(chan struct{}),
		streams: map[uint32]*Stream{}, nextID: 1,
		sendWindow: defaultWindow, peerStream: defaultWindow, peerStreams: 100,
		resets: budget{Rate: config.Resets}, controls: budget{Rate: config.Controls},
	}
	c.peerFrame.Store(minFrameSize)
	c.in.init(nc)
	c.out.init()
	c.dec.init(int(config.MaxHeaderList))
	return c
}

// Client begins a connection on nc, which it owns from then on. It does not wait
// for the peer.
func Client(nc net.Conn, config Config) (*Conn, error) {
	c := newConn(nc, config, true, nil)
	if err := c.start([]byte(Preface)); err != nil {
		nc.Close()
		return nil, err
	}
	c.startKeepAlive()
	go c.readLoop()
	return c, nil
}

// Server takes a connection on nc, which it owns, and calls handler in a
// goroutine of its own for each stream; a stream that is not complete when handler
// returns, and not relayed, is reset. started, or nil, is told of the connection
// once it speaks HTTP/2, before any stream. Server returns when the connection is
// over.
func Server(nc net.Conn, config Config, handler func(*Stream), started func(*Conn)) error {
	return ServerAfter(nc, nil, config, handler, started)
}

// ServerAfter is [Server] for a connection of which something was read already, to
// see what it speaks: at most 64 KiB.
func ServerAfter(nc net.Conn, read []byte, config Config, handler func(*Stream), started func(*Conn)) error {
	c := newConn(nc, config, false, handler)
	c.in.prepend(read)
	_ = nc.SetReadDeadline(time.Now().Add(c.config.PrefaceTimeout))
	got, err := c.in.need(len(Preface))
	if err == nil && string(got) != Preface {
		err = connError(CodeProtocol, "no HTTP/2 preface")
	}
	if err == nil {
		c.in.skip(len(Preface))
		err = c.start(nil)
	}
	if err != nil {
		nc.Close()
		c.in.release()
		return err
	}
	if started != nil {
		started(c)
	}
	c.startKeepAlive()
	c.readLoop()
	return c.Err()
}

// start writes the preface, the settings and the connection's window at once.
func (c *Conn) start(first []byte) error {
	settings := [][2]uint32{
		{settingStreams, c.config.MaxStreams}, {settingWindow, c.config.StreamWindow},
		{settingFrameSize, c.config.MaxFrame}, {settingHeaderList, c.config.MaxHeaderList},
	}
	switch {
	case c.client:
		settings = append(settings, [2]uint32{settingPush, 0})
	case c.config.ExtendedConnect:
		settings = append(settings, [2]uint32{settingConnectProtocol, 1})
	}
	b := appendFrameHeader(first, 6*len(settings), frameSettings, 0, 0)
	for _, s := range settings {
		b = binary.BigEndian.AppendUint16(b, uint16(s[0]))
		b = binary.BigEndian.AppendUint32(b, s[1])
	}
	if more := c.config.ConnWindow - defaultWindow; more > 0 {
		b = appendFrameHeader(b, 4, frameWindowUpdate, 0, 0)
		b = binary.BigEndian.AppendUint32(b, more)
	}
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

// ExtendedConnect reports whether the peer takes extended CONNECTs (RFC 8441);
// false before its settings are here.
func (c *Conn) ExtendedConnect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peerConnect
}

// Close ends the connection and its streams at once.
func (c *Conn) Close() { c.fail(&ConnError{Code: CodeNo, Reason: "closed"}) }

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
	c.live.Store(0)
	c.wakeBlockedLocked()
	if c.alive != nil {
		c.alive.Stop()
	}
	c.mu.Unlock()
	// The peer may not be reading: telling it is bounded.
	_ = c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	var ce *ConnError
	var farewell []byte
	if errors.As(err, &ce) && !ce.Remote {
		farewell = append(appendFrameHeader(nil, 8, frameGoAway, 0, 0), goAwayPayload(last, ce.Code)...)
	}
	c.failOutput(err, farewell)
	c.nc.Close()
	close(c.done)
	for _, s := range streams {
		s.end(err)
	}
}

// keepalive is the PING that asks whether the peer is there, drained the one that
// follows the first GOAWAY.
const (
	keepalive = "fairlead"
	drained   = "drained?"
)

func (c *Conn) startKeepAlive() {
	if c.config.PingInterval < 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.alive = time.AfterFunc(c.config.PingInterval, c.keepAlive)
	}
}

// keepAlive sends a PING, or ends a connection whose peer did not answer the last.
func (c *Conn) keepAlive() {
	now := time.Now()
	if sent := c.pingSent.Load(); sent == 0 {
		c.pingSent.Store(now.UnixNano())
		if err := c.writeControl(framePing, 0, 0, []byte(keepalive)); err != nil {
			c.fail(err)
		}
	} else if now.Sub(time.Unix(0, sent)) >= c.config.PingTimeout {
		c.fail(&ConnError{Code: CodeNo, Reason: "keepalive PING was not answered"})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.alive.Reset(c.config.PingInterval)
	}
}
