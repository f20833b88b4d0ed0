package format

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// startTime is %START_TIME(format)%: strftime's verbs, %s with 3, 6 or 9 for a
// finer Unix time, %f with 1 to 9 for a second's fraction, and %E3S.
func startTime(c command) (value, kind, error) {
	layout := c.arg
	if layout == "" {
		return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
			return appendMillis(dst, i.Start.UTC()), true
		}, text, nil
	}
	verbs, err := parseTime(layout)
	if err != nil {
		return nil, text, err
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		t := i.Start.UTC()
		for _, v := range verbs {
			dst = v(dst, t)
		}
		return dst, true
	}, text, nil
}

// appendMillis is Envoy's default, 2006-01-02T15:04:05.000Z. Package time does the
// same at four times the cost.
func appendMillis(dst []byte, t time.Time) []byte {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	dst = append(digits(dst, year, 4), '-')
	dst = append(digits(dst, int(month), 2), '-')
	dst = append(digits(dst, day, 2), 'T')
	dst = append(digits(dst, hour, 2), ':')
	dst = append(digits(dst, minute, 2), ':')
	dst = append(digits(dst, second, 2), '.')
	return append(digits(dst, t.Nanosecond()/1e6, 3), 'Z')
}

func digits(dst []byte, n, width int) []byte {
	var b [9]byte
	for i := width - 1; i >= 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return append(dst, b[:width]...)
}

type timeVerb func(dst []byte, t time.Time) []byte

// layouts are the verbs that package time has.
var layouts = map[byte]string{
	'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'y': "06", 'b': "Jan", 'h': "Jan", 'B': "January",
	'a': "Mon", 'A': "Monday", 'I': "03", 'p': "PM", 'z': "-0700", 'Z': "MST", 'T': "15:04:05", 'F': "2006-01-02", 'D': "01/02/06",
	'e': "_2", 'j': "002", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006",
}

func parseTime(s string) ([]timeVerb, error) {
	var out []timeVerb
	literal := func(text string) {
		if text != "" {
			out = append(out, func(dst []byte, _ time.Time) []byte { return append(dst, text...) })
		}
	}
	for s != "" {
		at := strings.IndexByte(s, '%')
		if at < 0 {
			literal(s)
			break
		}
		literal(s[:at])
		s = s[at+1:]
		if s == "" {
			return nil, errors.New(`the time format ends with a lone "%"`)
		}
		width := 0
		switch {
		case s[0] == '%':
			literal("%")
			s = s[1:]
			continue
		case s[0] >= '1' && s[0] <= '9':
			width, s = int(s[0]-'0'), s[1:]
		case strings.HasPrefix(s, "E*S"):
			width, s = 9, "E"+s[2:]
		case len(s) >= 3 && s[0] == 'E' && s[1] >= '0' && s[1] <= '9' && s[2] == 'S':
			width, s = int(s[1]-'0'), "E"+s[3:]
		}
		if s == "" {
			return nil, errors.New("the time format ends within a verb")
		}
		out = append(out, newTimeVerb(s[0], width))
		s = s[1:]
	}
	return out, nil
}

func newTimeVerb(c byte, width int) timeVerb {
	scale := int64(1)
	for range 9 - width {
		scale *= 10
	}
	switch {
	case c == 'E':
		return func(dst []byte, t time.Time) []byte {
			dst = digits(dst, t.Second(), 2)
			if width == 0 {
				return dst
			}
			return digits(append(dst, '.'), t.Nanosecond()/int(scale), width)
		}
	case c == 'f':
		if width == 0 {
			width, scale = 9, 1
		}
		return func(dst []byte, t time.Time) []byte { return digits(dst, t.Nanosecond()/int(scale), width) }
	case c == 's':
		return func(dst []byte, t time.Time) []byte { return strconv.AppendInt(dst, t.UnixNano()/scale, 10) }
	case width == 0 && layouts[c] != "":
		layout := layouts[c]
		return func(dst []byte, t time.Time) []byte { return t.AppendFormat(dst, layout) }
	}
	// As strftime does with verbs that it does not know.
	return func(dst []byte, _ time.Time) []byte { return append(dst, '%', c) }
}
