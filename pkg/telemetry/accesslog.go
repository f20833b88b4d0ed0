package telemetry

import (
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// Format is how an access record is written.
type Format string

// The formats. Off writes nothing.
const (
	FormatText Format = "text"
	FormatJSON Format = "json"
	FormatOff  Format = "off"
)

// ParseFormat reads a format's name.
func ParseFormat(s string) (Format, error) {
	switch f := Format(s); f {
	case FormatText, FormatJSON, FormatOff:
		return f, nil
	}
	return "", fmt.Errorf("access log format %q: want text, json or off", s)
}

// AccessLog writes one line per connection.
type AccessLog struct {
	format Format
	lines  *LineWriter
}

// NewAccessLog writes records to lines; a nil result writes nothing.
func NewAccessLog(format Format, lines *LineWriter) *AccessLog {
	if format == FormatOff {
		return nil
	}
	return &AccessLog{format: format, lines: lines}
}

// log writes the record of a connection that ended. rec's lock is held.
func (r *Recorder) log(rec *Record, result Result) {
	if r.access == nil {
		return
	}
	level, message := "info", "connection complete"
	switch {
	case !rec.established:
		level, message = "warn", "connection failed"
	case result.Err != nil:
		level = "error"
	}
	now := r.now()
	line := newLine(r.access.format, now, level, message)
	rec.fields(line, now, result)
	r.access.lines.Write(line.end())
}

// fields are in the order and under the names of Istio's node proxy; flag,
// policy and reason are ours.
func (r *Record) fields(l *line, now time.Time, result Result) {
	i := &r.info
	l.addr("src.addr", i.SourceAddr.String(), i.SourceAddr.IsValid())
	l.workload("src", i.Source, i.SourceIdentity)
	l.addr("dst.addr", i.DestinationAddr.String(), i.DestinationAddr.IsValid())
	l.text("dst.hbone_addr", i.Authority)
	if i.Service != nil {
		l.text("dst.service", i.Service.Key.Hostname)
	}
	l.workload("dst", i.Destination, i.DestinationIdentity)
	l.text("direction", i.Direction.String())
	sent, received := r.ToServer.Load(), r.ToClient.Load()
	if i.Direction == Inbound {
		sent, received = received, sent
	}
	l.number("bytes_sent", sent)
	l.number("bytes_recv", received)
	l.text("duration", strconv.FormatInt(now.Sub(r.opened).Milliseconds(), 10)+"ms")
	if result.Flag != FlagNone {
		l.text("flag", string(result.Flag))
	}
	l.text("policy", r.policy)
	l.text("reason", r.reason)
	if result.Err != nil {
		l.text("error", result.Err.Error())
	}
}

// line is one record being written.
type line struct {
	json bool
	buf  []byte
}

func newLine(format Format, now time.Time, level, message string) *line {
	l := &line{json: format == FormatJSON, buf: make([]byte, 0, 640)}
	stamp := now.UTC().Format("2006-01-02T15:04:05.000000Z")
	if !l.json {
		l.buf = append(l.buf, stamp...)
		l.buf = append(l.buf, '\t')
		l.buf = append(l.buf, level...)
		l.buf = append(l.buf, "\taccess\t"...)
		l.buf = append(l.buf, message...)
		return l
	}
	l.buf = append(l.buf, '{')
	l.text("time", stamp)
	l.text("level", level)
	l.text("scope", "access")
	l.text("message", message)
	return l
}

func (l *line) key(name string) {
	switch {
	case !l.json:
		l.buf = append(append(append(l.buf, '\t'), name...), '=')
	default:
		if len(l.buf) > 1 {
			l.buf = append(l.buf, ',')
		}
		l.buf = append(append(append(l.buf, '"'), name...), `":`...)
	}
}

// text adds a field unless it is empty.
func (l *line) text(name, value string) {
	if value == "" {
		return
	}
	l.key(name)
	l.buf = appendJSONString(l.buf, value)
}

// addr adds an address: bare in text, quoted in JSON.
func (l *line) addr(name, value string, valid bool) {
	if !valid {
		return
	}
	l.key(name)
	if l.json {
		l.buf = appendJSONString(l.buf, value)
		return
	}
	l.buf = append(l.buf, value...)
}

func (l *line) number(name string, value uint64) {
	l.key(name)
	l.buf = strconv.AppendUint(l.buf, value, 10)
}

func (l *line) workload(side string, w *mesh.Workload, id mesh.Identity) {
	if w != nil {
		l.text(side+".workload", w.Name)
		l.text(side+".namespace", w.Namespace)
	}
	l.text(side+".identity", id.String())
	if w != nil {
		l.text(side+".cluster", w.Cluster)
	}
}

func (l *line) end() []byte {
	if l.json {
		l.buf = append(l.buf, '}')
	}
	return append(l.buf, '\n')
}

// appendJSONString quotes s as JSON does; the text format uses the same quotes.
func appendJSONString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, '\\', 'n')
		case r < 0x20 || r == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4&15], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
