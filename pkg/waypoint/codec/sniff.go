package codec

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Protocol is what a connection carries.
type Protocol uint8

// The protocols that can be told apart.
const (
	TCP Protocol = iota // none of the others, or the client sent nothing in time
	HTTP1
	HTTP2 // with prior knowledge
	TLS
	HTTP // of either version: a connection was not looked at
)

// Sniffed is what a connection's first bytes say.
type Sniffed struct {
	Protocol Protocol
	// ServerName and ALPN are of a TLS ClientHello; the name is in lower case.
	ServerName string
	ALPN       []string
}

// maxSniffed bounds the bytes that are looked at for the end of the first line.
const maxSniffed = 8 << 10

// Sniff looks at the first bytes of a connection until they tell its protocol, or
// until the timeout, after which it is TCP: its server may speak first. The bytes are
// still to be read from the connection that is returned. An error is conn's, which
// remains the caller's to close.
func Sniff(conn Conn, timeout time.Duration) (Sniffed, Conn, error) {
	p := &peeked{Conn: conn}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Sniffed{}, nil, err
	}
	s, err := p.sniff()
	// The end of the client's side may come before its bytes tell more: who reads
	// on meets it again.
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		return Sniffed{}, nil, err
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return Sniffed{}, nil, err
	}
	if len(p.ahead) == 0 {
		return s, conn, nil
	}
	return s, p, nil
}

func (p *peeked) sniff() (Sniffed, error) {
	var r reader
	r.init(p.Conn)
	for {
		if err := p.more(&r); err != nil {
			if errors.Is(err, io.EOF) && endsRequest(p.ahead) {
				return Sniffed{Protocol: HTTP1}, nil
			}
			return Sniffed{}, err
		}
		if p.ahead[0] == 0x16 { // a handshake's record (RFC 8446 section 5.1)
			return p.hello(&r)
		}
		protocol, known := protocolOf(p.ahead)
		switch {
		case known:
			return Sniffed{Protocol: protocol}, nil
		case len(p.ahead) >= maxSniffed:
			// So long a line may still be a request's, and is for its reader to refuse.
			return Sniffed{Protocol: HTTP1}, nil
		}
	}
}

// more reads ahead. It holds no buffer while it waits for a socket or a stream.
func (p *peeked) more(r *reader) error {
	buf, n, err := r.read(nil, smallBuffer)
	if err != nil {
		return err
	}
	p.ahead = append(p.ahead, buf[:n]...)
	giveBack(buf)
	return nil
}

// errHello ends a handshake whose first message was seen.
var errHello = errors.New("seen")

// hello reads a ClientHello with the standard library's parser.
func (p *peeked) hello(from *reader) (Sniffed, error) {
	s := Sniffed{}
	r := &helloReader{p: p, from: from}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, // of a server that never answers
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			s = Sniffed{Protocol: TLS, ServerName: strings.ToLower(h.ServerName), ALPN: h.SupportedProtos}
			return nil, errHello
		},
	}
	_ = tls.Server(r, config).Handshake() // it always fails
	if s.Protocol == TLS {
		return s, nil
	}
	return s, r.err
}

// helloReader is a connection whose bytes stay ahead, and that answers nothing.
type helloReader struct {
	net.Conn // nil
	p        *peeked
	from     *reader
	at       int
	err      error
}

func (r *helloReader) Read(b []byte) (int, error) {
	const maxHello = 64 << 10
	if r.at == len(r.p.ahead) {
		if len(r.p.ahead) > maxHello {
			return 0, io.ErrShortBuffer
		}
		if r.err = r.p.more(r.from); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(b, r.p.ahead[r.at:])
	r.at += n
	return n, nil
}

func (r *helloReader) Write(b []byte) (int, error)      { return len(b), nil }
func (r *helloReader) Close() error                     { return nil }
func (r *helloReader) SetDeadline(time.Time) error      { return nil }
func (r *helloReader) SetReadDeadline(time.Time) error  { return nil }
func (r *helloReader) SetWriteDeadline(time.Time) error { return nil }
