// Package codec is the one way in which the waypoint reads and writes HTTP,
// whatever its version: package h1 and package h2 behind two interfaces. One
// goroutine can do a whole exchange; what blocks ends at a deadline.
package codec

import (
	"net"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// Conn is what a codec runs over: a socket, TLS over one, or a tunnel's stream.
type Conn interface {
	net.Conn
	// CloseWrite says that nothing more is sent.
	CloseWrite() error
	// Abort ends the connection abruptly: the peer sees a reset.
	Abort()
}

// Reader is the incoming side of a message's body.
type Reader interface {
	// Next waits for bytes of the body and returns them, [io.EOF] after the last.
	// They are valid until the next call. After [os.ErrDeadlineExceeded] it may be
	// called again.
	Next() ([]byte, error)
	// Ready reports whether Next would not wait.
	Ready() bool
	// Trailers are the fields after the body; they are here after io.EOF.
	Trailers() message.Fields
	// SetReadDeadline bounds waits for the peer; zero is none.
	SetReadDeadline(t time.Time) error
}

// Writer is the outgoing side of a message's body. Heads and small pieces are held
// back until there is enough for a write, or Flush.
type Writer interface {
	Write(p []byte) (int, error)
	// Flush sends what is held back.
	Flush() error
	// Finish ends the body, with trailers if there are any, and flushes.
	Finish(trailers message.Fields) error
	// SetWriteDeadline bounds waits for a peer that does not read; zero is none.
	SetWriteDeadline(t time.Time) error
}

// Exchange is a request that came in, and its response.
//
// After a response that switches protocols (101 to an Upgrade, 2xx to a CONNECT)
// Next and Write carry the other protocol's bytes, and Finish is the end of ours.
type Exchange interface {
	// Request is the head. The engine may change it.
	Request() *message.Request
	// Began is when the head began to come, or zero: it came at once.
	Began() time.Time
	// HasBody is false for a request that ended with its head.
	HasBody() bool
	Reader

	// Inform sends an informational response (1xx other than 101).
	Inform(*message.Response) error
	// Respond begins the response; end says that nothing follows. It is called once.
	Respond(r *message.Response, end bool) error
	Writer

	// Gone reports, without waiting, whether the client is gone or has reset the
	// exchange. It is cheap enough to be asked a few times a second.
	Gone() bool
	// Reset ends the exchange abruptly. HTTP/1 loses its connection.
	Reset()
	// CloseAfter makes HTTP/1 close the connection after this response, and HTTP/2
	// take no new streams.
	CloseAfter()
}

// ClientStream is a request that goes out, and its response.
type ClientStream interface {
	// Send begins the request; end says that nothing follows. It is called once.
	Send(r *message.Request, end bool) error
	Writer

	// Response waits for the next head: informational ones (1xx other than 101), then
	// the response's. It may be called again after [os.ErrDeadlineExceeded].
	Response() (*message.Response, error)
	// HasBody is false for a response that ended with its head.
	HasBody() bool
	Reader

	// Close ends the use. A complete exchange leaves the connection usable; any
	// other is reset. The stream and what it returned are not to be used afterwards.
	Close()
}

// Handler serves one exchange. The codec owns the exchange again when it returns;
// one that was not answered is reset.
type Handler func(Exchange)
