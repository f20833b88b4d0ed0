package differential

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// field is a header's field as it was on the wire.
type field struct{ Name, Value string }

// seen is a request as an upstream saw it.
type seen struct {
	endpoint                       int // of those of the upstream
	proto, method, path, authority string
	fields, trailers               []field
	body                           string
	conn                           int // which connection of all
	broken                         string
	at                             time.Time
}

// step is how the upstream behaves in one try. The language: words separated by blanks;
// tries separated by "|", of which the last one repeats. Values are URL-escaped.
//
//	status=503 body=text size=1000 h=name:value t=name:value info=103
//	delay=300ms   before the response        pause=300ms  between its head and its body
//	reset, close  instead of a response      resetmid, closemid  in the middle of its body
//	chunked, nolen  how the body is framed   early  before the request's body is read
//	refuse, goaway  in HTTP/2                upgrade  101, or 200 in HTTP/2; then its body,
//	                                                  then what comes is sent back
//	at=3:503      the status of one endpoint alone
//	raw=bytes     what is written instead    last  the connection is closed after it
type step struct {
	status, size, endpoint                                                           int
	body, raw                                                                        string
	fields, trailers                                                                 []field
	infos                                                                            []int
	delay, pause                                                                     time.Duration
	reset, close, resetMid, closeMid, chunked, noLength, early, refuse, goaway, last bool
	upgrade, hasBody                                                                 bool
}

func parseScript(script string, try, endpoint int) (step, error) {
	tries := strings.Split(script, "|")
	s := step{status: 200, endpoint: endpoint}
	for _, word := range strings.Fields(tries[min(try, len(tries)-1)]) {
		if err := s.word(word); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *step) word(word string) (err error) {
	name, value, _ := strings.Cut(word, "=")
	if value, err = url.PathUnescape(value); err != nil {
		return err
	}
	switch name {
	case "status":
		s.status, err = strconv.Atoi(value)
	case "at":
		of, status, _ := strings.Cut(value, ":")
		if of == strconv.Itoa(s.endpoint) {
			s.status, err = strconv.Atoi(status)
		}
	case "size":
		s.size, err = strconv.Atoi(value)
		s.body, s.hasBody = strings.Repeat("x", s.size), true
	case "body":
		s.body, s.hasBody = value, true
	case "raw":
		s.raw = value
	case "h", "t":
		n, v, _ := strings.Cut(value, ":")
		if name == "h" {
			s.fields = append(s.fields, field{n, v})
		} else {
			s.trailers = append(s.trailers, field{n, v})
		}
	case "info":
		var n int
		n, err = strconv.Atoi(value)
		s.infos = append(s.infos, n)
	case "delay":
		s.delay, err = time.ParseDuration(value)
	case "pause":
		s.pause, err = time.ParseDuration(value)
	default:
		flag := map[string]*bool{"reset": &s.reset, "close": &s.close, "resetmid": &s.resetMid, "closemid": &s.closeMid, "chunked": &s.chunked, "nolen": &s.noLength,
			"early": &s.early, "refuse": &s.refuse, "goaway": &s.goaway, "upgrade": &s.upgrade, "last": &s.last}[name]
		if flag == nil {
			return fmt.Errorf("script: unknown word %q", word)
		}
		*flag = true
	}
	return err
}

func valueOf(fields []field, name string) string {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}
