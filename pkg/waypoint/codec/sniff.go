package codec

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
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

// protocolOf tells the protocol from first bytes, if they are enough. What a server
// could take for a request is HTTP/1, however wrong it is: its reader refuses it,
// and nobody gets past a policy on requests by a line that he bends.
func protocolOf(b []byte) (protocol Protocol, known bool) {
	if n := min(len(b), len(h2.Preface)); string(b[:n]) == h2.Preface[:n] {
		return HTTP2, n == len(h2.Preface)
	}
	line, _, whole := bytes.Cut(bytes.TrimLeft(b, " \t\r\n"), []byte{'\n'})
	method, rest, words := line, []byte(nil), false
	if at := bytes.IndexAny(line, " \t"); at >= 0 {
		method, rest, words = line[:at], line[at+1:], true
	}
	switch {
	case !isToken(bytes.TrimRight(method, "\r")) || bytes.ContainsFunc(rest, isControl):
		return TCP, true
	case !whole:
		return TCP, false
	case words && (hasVersion(rest) || string(method) == "GET" && oneTarget(rest)):
		return HTTP1, true
	}
	return TCP, true
}

// isToken tells whether a word may be a method (RFC 9110 section 5.6.2), or grow
// into one.
func isToken(b []byte) bool {
	return !bytes.ContainsFunc(b, func(r rune) bool { return !httpguts.IsTokenRune(r) })
}

// isControl tells whether a character keeps a line from being a request's.
func isControl(r rune) bool { return r < ' ' && r != '\t' && r != '\r' || r == 0x7f }

// hasVersion tells whether a word of a line begins with a version of HTTP.
func hasVersion(line []byte) bool {
	return bytes.HasPrefix(line, []byte("HTTP/")) || bytes.Contains(line, []byte(" HTTP/")) || bytes.Contains(line, []byte("\tHTTP/"))
}

// oneTarget tells whether a line is a path alone, as in HTTP/0.9, which servers are
// found to answer.
func oneTarget(line []byte) bool {
	words := bytes.Fields(line)
	return len(words) == 1 && words[0][0] == '/'
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
