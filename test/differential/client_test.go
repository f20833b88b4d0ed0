package differential

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
)

// request is what a client sends to both proxies.
type request struct {
	method, path, host string // GET, /, "web.test"
	fields             []string
	body               string
	chunked            bool
	trailers           []string
	script             string
	// raw is sent instead of all above; @CASE@ in it is the case.
	raw string
	h2  bool
	// serverName: TLS to whoever ends it; protocols are its ALPN.
	serverName string
	protocols  []string
	// patience is how long an answer is waited for; zero: 10 s.
	patience time.Duration
	// more is sent after the response's head came, as after an upgrade; then as many bytes
	// are read, and those of answers.
	more    string
	answers int
	// protocol is what an HTTP/2 request asks for beside CONNECT (RFC 8441), or "".
	protocol string
	// all: the connection is read to its end, or until it is silent for a while.
	all bool
	// cut: the client goes away after so long.
	cut time.Duration
}

func (r request) withDefaults() request {
	if r.method == "" {
		r.method = "GET"
	}
	if r.path == "" {
		r.path = "/"
	}
	if r.host == "" {
		r.host = "web.test"
	}
	if r.patience == 0 {
		r.patience = 10 * time.Second
	}
	return r
}

func (r request) text(mark string) string {
	if r.raw != "" {
		return strings.ReplaceAll(r.raw, "@CASE@", mark)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nhost: %s\r\nx-case: %s\r\n", r.method, r.path, r.host, mark)
	if r.script != "" {
		fmt.Fprintf(&b, "x-script: %s\r\n", r.script)
	}
	for _, f := range r.fields {
		b.WriteString(f + "\r\n")
	}
	switch {
	case r.chunked || len(r.trailers) > 0:
		b.WriteString("transfer-encoding: chunked\r\n\r\n")
		if r.body != "" {
			fmt.Fprintf(&b, "%x\r\n%s\r\n", len(r.body), r.body)
		}
		b.WriteString("0\r\n")
		for _, f := range r.trailers {
			b.WriteString(f + "\r\n")
		}
		b.WriteString("\r\n")
	case r.body != "":
		fmt.Fprintf(&b, "content-length: %d\r\n\r\n%s", len(r.body), r.body)
	default:
		b.WriteString("\r\n")
	}
	return b.String()
}

// answer is what the client got.
type answer struct {
	infos            []int
	status           int
	proto            string
	fields, trailers []field
	body             string
	end              string // "", or how it failed
	rest             string // what came after it, where all is read
	took             time.Duration
}

// ask sends a request to a port of a proxy.
func ask(p *proxy, port int, r request, mark string) (a answer) {
	start := time.Now()
	defer func() { a.took = time.Since(start) }()
	c, err := net.Dial("tcp", net.JoinHostPort(p.host, strconv.Itoa(port)))
	if err != nil {
		return answer{end: "connect"}
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(r.patience))
	if r.cut > 0 {
		_ = c.SetDeadline(time.Now().Add(r.cut))
	}
	if r.serverName != "" {
		secured := tls.Client(c, &tls.Config{ServerName: r.serverName, NextProtos: r.protocols, InsecureSkipVerify: true})
		if err := secured.Handshake(); err != nil {
			return answer{end: "no TLS"}
		}
		c = secured
	}
	if r.h2 {
		return ask2(c, r, mark)
	}
	// What is written is refused in the middle where the proxy ends the connection, and
	// its answer counts all the same.
	go func() { _, _ = io.WriteString(c, r.text(mark)) }()
	in := bufio.NewReader(c)
	a = readAnswer(in, r.method)
	if r.more != "" && a.status == 101 {
		go func() { _, _ = io.WriteString(c, r.more) }()
		b := make([]byte, len(r.more)+r.answers)
		n, _ := io.ReadFull(in, b)
		a.rest = string(b[:n])
	}
	if r.all {
		_ = c.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
		b, err := io.ReadAll(in)
		a.rest = stripDates(string(b))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			a.rest += " (open)"
		} else {
			a.rest += " (closed)"
		}
	}
	return a
}

// stripDates takes what is of the moment out of responses, and the order of their fields.
func stripDates(s string) string {
	lines := strings.Split(s, "\r\n")
	for i, l := range lines {
		name, value, ok := strings.Cut(l, ": ")
		if ok {
			lines[i] = name + ": " + normal(strings.ToLower(name), value)
		}
	}
	for first, i := 0, 0; i < len(lines); i++ {
		if lines[i] == "" {
			slices.Sort(lines[first:i])
			first = i + 1
		}
	}
	return strings.Join(lines, "\n")
}

func readAnswer(in *bufio.Reader, method string) (a answer) {
	for {
		line, err := readLine(in)
		if err != nil {
			a.end = cause(err)
			return a
		}
		parts := strings.SplitN(line, " ", 3)
		if len(parts) < 2 {
			a.end = "status line " + line
			return a
		}
		a.proto = parts[0]
		a.status, _ = strconv.Atoi(parts[1])
		if a.fields, err = readFields(in); err != nil {
			a.end = "head: " + cause(err)
			return a
		}
		if a.status >= 200 || a.status == 101 {
			break
		}
		a.infos = append(a.infos, a.status)
	}
	if method == "HEAD" || a.status == 204 || a.status == 304 || a.status == 101 || method == "CONNECT" && a.status/100 == 2 {
		return a
	}
	var err error
	if a.body, a.trailers, err = readBody(in, a.fields, true); err != nil {
		a.end = "body: " + cause(err)
	}
	return a
}

func cause(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case strings.Contains(err.Error(), "reset by peer"), strings.Contains(err.Error(), "broken pipe"):
		return "reset"
	}
	return err.Error()
}

func ask2(c net.Conn, r request, mark string) (a answer) {
	a.proto = "HTTP/2"
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return answer{end: cause(err)}
	}
	p := newPeer2(c, c)
	if err := p.framer.WriteSettings(); err != nil {
		return answer{end: cause(err)}
	}
	fields := []field{{":method", r.method}, {":scheme", "http"}, {":authority", r.host}, {":path", r.path}, {"x-case", mark}}
	switch {
	case r.protocol != "":
		fields = append([]field{{":method", "CONNECT"}, {":protocol", r.protocol}}, fields[1:]...)
	case r.method == "CONNECT":
		fields = []field{{":method", r.method}, {":authority", r.host}, {"x-case", mark}}
	}
	if r.script != "" {
		fields = append(fields, field{"x-script", r.script})
	}
	fields = append(fields, parseFields(r.fields)...)
	if r.body != "" && !r.chunked {
		fields = append(fields, field{"content-length", strconv.Itoa(len(r.body))})
	}
	trailers := parseFields(r.trailers)
	_ = p.headers(1, r.body == "" && len(trailers) == 0 && r.protocol == "", fields)
	if r.body != "" {
		_ = p.data(1, len(trailers) == 0, r.body)
	}
	if len(trailers) > 0 {
		_ = p.headers(1, true, trailers)
	}
	var body bytes.Buffer
	defer func() { a.body = body.String() }()
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			a.end = cause(err)
			return a
		}
		if p.common(f) {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			pseudo, got := fieldsOf(f)
			status, _ := strconv.Atoi(pseudo[":status"])
			switch {
			case pseudo[":status"] == "":
				a.trailers = got
			case status < 200 && status != 101:
				a.infos = append(a.infos, status)
			default:
				a.status, a.fields = status, got
			}
			if f.StreamEnded() {
				return a
			}
			if a.status == 200 && r.protocol != "" {
				go func() { _ = p.data(1, false, r.more) }()
			}
		case *http2.DataFrame:
			p.credit(f)
			body.Write(f.Data())
			if f.StreamEnded() || r.protocol != "" && body.Len() >= len(r.more)+r.answers {
				return a
			}
		case *http2.RSTStreamFrame:
			a.end = "reset " + f.ErrCode.String()
			return a
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				a.end = "goaway " + f.ErrCode.String()
				return a
			}
		}
	}
}

func parseFields(lines []string) (out []field) {
	for _, l := range lines {
		at := strings.Index(l[1:], ":") + 1
		out = append(out, field{strings.ToLower(l[:at]), strings.TrimSpace(l[at+1:])})
	}
	return out
}
