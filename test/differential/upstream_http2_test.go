package differential

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer2 is one end of an HTTP/2 connection, frame by frame.
type peer2 struct {
	c      net.Conn
	framer *http2.Framer

	// mu guards below: writing.
	mu      sync.Mutex
	encoded bytes.Buffer
	encoder *hpack.Encoder
}

func newPeer2(c net.Conn, r io.Reader) *peer2 {
	p := &peer2{c: c, framer: http2.NewFramer(c, r)}
	p.encoder = hpack.NewEncoder(&p.encoded)
	p.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	p.framer.MaxHeaderListSize = 1 << 20
	return p
}

func (p *peer2) headers(stream uint32, end bool, fields []field) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.encoded.Reset()
	for _, f := range fields {
		_ = p.encoder.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	block := p.encoded.Bytes()
	const frame = 16384
	first := block[:min(len(block), frame)]
	rest := block[len(first):]
	if err := p.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(rest) == 0}); err != nil {
		return err
	}
	for len(rest) > 0 {
		part := rest[:min(len(rest), frame)]
		rest = rest[len(part):]
		if err := p.framer.WriteContinuation(stream, len(rest) == 0, part); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer2) data(stream uint32, end bool, body string) error {
	for first := true; first || len(body) > 0; first = false {
		part := body[:min(len(body), 16384)]
		body = body[len(part):]
		p.mu.Lock()
		err := p.framer.WriteData(stream, end && len(body) == 0, []byte(part))
		p.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *peer2) reset(stream uint32, code http2.ErrCode) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.framer.WriteRSTStream(stream, code)
}

// common answers frames that are alike at both ends; false: the frame is another one.
func (p *peer2) common(f http2.Frame) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch f := f.(type) {
	case *http2.SettingsFrame:
		if !f.IsAck() {
			_ = p.framer.WriteSettingsAck()
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			_ = p.framer.WritePing(true, f.Data)
		}
	default:
		return false
	}
	return true
}

// credit gives back what data took of the windows.
func (p *peer2) credit(f *http2.DataFrame) {
	if n := len(f.Data()); n > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		_ = p.framer.WriteWindowUpdate(0, uint32(n))
		if !f.StreamEnded() {
			_ = p.framer.WriteWindowUpdate(f.StreamID, uint32(n))
		}
	}
}

func fieldsOf(f *http2.MetaHeadersFrame) (pseudo map[string]string, fields []field) {
	pseudo = map[string]string{}
	for _, h := range f.Fields {
		if h.IsPseudo() {
			pseudo[h.Name] = h.Value
		} else {
			fields = append(fields, field{h.Name, h.Value})
		}
	}
	return pseudo, fields
}

// stream2 is a request that is being received.
type stream2 struct {
	s   seen
	key string
	try int
	how step
	// echo: it is another protocol, whose bytes are sent back, or which ended at once.
	echo, ended bool
}

func (u *upstream) serveHTTP2(endpoint, number int, c net.Conn, r *bufio.Reader) {
	if _, err := r.Discard(len(http2.ClientPreface)); err != nil {
		return
	}
	p := newPeer2(c, r)
	if err := p.framer.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100}, http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}); err != nil {
		return
	}
	streams := map[uint32]*stream2{}
	complete := func(id uint32, x *stream2) {
		u.amend(x.key, x.try, x.s)
		if !x.how.early {
			go p.respond(id, x.s.method, x.how)
		}
	}
	for {
		f, err := p.framer.ReadFrame()
		if err != nil {
			return
		}
		if p.common(f) {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			pseudo, fields := fieldsOf(f)
			if x := streams[f.StreamID]; x != nil {
				x.s.trailers = fields
				complete(f.StreamID, x)
				continue
			}
			x := &stream2{s: seen{endpoint: endpoint, conn: number, proto: "HTTP/2", method: pseudo[":method"], path: pseudo[":path"], authority: pseudo[":authority"], fields: fields, at: time.Now()}}
			streams[f.StreamID] = x
			x.key, x.try = u.note(x.s, "")
			if x.how, err = parseScript(valueOf(fields, "x-script"), x.try, endpoint); err != nil {
				x.how = step{status: 500, body: err.Error()}
			}
			switch {
			case x.how.upgrade && pseudo[":protocol"] != "":
				x.echo, x.ended = !x.how.last, x.how.last
				_ = p.headers(f.StreamID, false, append([]field{{":status", "200"}, {"x-protocol", pseudo[":protocol"]}}, x.how.fields...))
				_ = p.data(f.StreamID, x.how.last, x.how.body)
			case x.how.early, pseudo[":protocol"] != "":
				x.how.early = true // it is answered
				go p.respond(f.StreamID, x.s.method, x.how)
			}
			if f.StreamEnded() {
				complete(f.StreamID, x)
			}
		case *http2.DataFrame:
			p.credit(f)
			if x := streams[f.StreamID]; x != nil && x.echo {
				_ = p.data(f.StreamID, f.StreamEnded(), string(f.Data()))
			} else if x != nil && !x.ended {
				x.s.body += string(f.Data())
				if f.StreamEnded() {
					complete(f.StreamID, x)
				}
			}
		case *http2.RSTStreamFrame:
			if x := streams[f.StreamID]; x != nil {
				x.s.broken = "reset " + f.ErrCode.String()
				u.amend(x.key, x.try, x.s)
			}
		}
	}
}

// respond does what a step says.
func (p *peer2) respond(id uint32, method string, how step) {
	<-time.After(how.delay)
	switch {
	case how.reset:
		p.reset(id, http2.ErrCodeInternal)
		return
	case how.refuse:
		p.reset(id, http2.ErrCodeRefusedStream)
		return
	case how.close:
		p.c.Close()
		return
	case how.goaway:
		p.mu.Lock()
		_ = p.framer.WriteGoAway(0, http2.ErrCodeNo, nil)
		p.mu.Unlock()
		return
	}
	for _, n := range how.infos {
		_ = p.headers(id, false, []field{{":status", strconv.Itoa(n)}, {"x-info", strconv.Itoa(n)}})
	}
	fields := append([]field{{":status", strconv.Itoa(how.status)}}, how.fields...)
	if !how.chunked && !how.noLength && how.hasBody {
		fields = append(fields, field{"content-length", strconv.Itoa(len(how.body))})
	}
	bodyless := method == "HEAD" || how.status == 204 || how.status == 304 || how.body == ""
	end := bodyless && len(how.trailers) == 0 && !how.resetMid && !how.closeMid
	_ = p.headers(id, end, fields)
	if end {
		return
	}
	<-time.After(how.pause)
	if how.resetMid || how.closeMid {
		_ = p.data(id, false, how.body[:len(how.body)/2])
		<-time.After(20 * time.Millisecond)
		if how.resetMid {
			p.reset(id, http2.ErrCodeInternal)
		} else {
			p.c.Close()
		}
		return
	}
	if !bodyless {
		_ = p.data(id, len(how.trailers) == 0, how.body)
	}
	if len(how.trailers) > 0 {
		_ = p.headers(id, true, how.trailers)
	}
}
