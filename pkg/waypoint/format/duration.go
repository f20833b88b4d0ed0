package format

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// points are the moments of an exchange that %COMMON_DURATION(from:to:unit)% knows,
// as times since its start.
var points = map[string]func(*streaminfo.Info) (time.Duration, bool){
	"DS_RX_BEG": func(*streaminfo.Info) (time.Duration, bool) { return 0, true },
	"DS_RX_END": func(i *streaminfo.Info) (time.Duration, bool) { return i.RequestReceived, i.RequestReceived > 0 },
	"US_TX_END": func(i *streaminfo.Info) (time.Duration, bool) { return i.RequestSent, i.RequestSent > 0 },
	"US_RX_BEG": func(i *streaminfo.Info) (time.Duration, bool) { return i.UpstreamFirstByte, i.UpstreamFirstByte > 0 },
	"US_RX_END": func(i *streaminfo.Info) (time.Duration, bool) { return i.UpstreamLastByte, i.UpstreamLastByte > 0 },
	"DS_TX_BEG": func(i *streaminfo.Info) (time.Duration, bool) { return i.UpstreamFirstByte, i.UpstreamFirstByte > 0 },
	"DS_TX_END": func(i *streaminfo.Info) (time.Duration, bool) { return i.Duration, i.Duration > 0 },
}

func commonDuration(c command) (value, kind, error) {
	parts := strings.Split(c.arg, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return nil, number, errors.New("its argument has the form (from:to:unit), as in (DS_RX_BEG:DS_TX_END:ms)")
	}
	unit := time.Millisecond
	if len(parts) == 3 {
		var ok bool
		if unit, ok = map[string]time.Duration{"ms": time.Millisecond, "us": time.Microsecond, "ns": time.Nanosecond}[parts[2]]; !ok {
			return nil, number, fmt.Errorf("the unit %q is not ms, us or ns", parts[2])
		}
	}
	from, to := points[parts[0]], points[parts[1]]
	if from == nil || to == nil {
		return nil, number, fmt.Errorf("%q: the moments are DS_RX_BEG, DS_RX_END, US_TX_END, US_RX_BEG, US_RX_END, DS_TX_BEG and DS_TX_END", c.arg)
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		a, ok := from(i)
		b, done := to(i)
		if !ok || !done || b < a {
			return dst, false
		}
		return strconv.AppendInt(dst, int64((b-a)/unit), 10), true
	}, number, nil
}

// coalesce is %COALESCE({"operators": [...]})%: the first of several that has a
// value. An operator is a command's name or {"command", "param", "max_length"}.
func coalesce(c command) (value, kind, error) {
	var arg struct{ Operators []json.RawMessage }
	if err := json.Unmarshal([]byte(c.arg), &arg); err != nil || len(arg.Operators) == 0 {
		return nil, text, errors.New(`its argument has the form ({"operators": ["ROUTE_NAME", {"command": "REQ", "param": "x"}]})`)
	}
	var terms []term
	for n, raw := range arg.Operators {
		var one struct {
			Command   string
			Param     string
			MaxLength int `json:"max_length"`
		}
		if json.Unmarshal(raw, &one.Command) != nil {
			if err := json.Unmarshal(raw, &one); err != nil {
				return nil, text, fmt.Errorf("operators[%d]: %w", n, err)
			}
		}
		if one.Command == c.name {
			return nil, text, fmt.Errorf("operators[%d]: %s does not nest", n, c.name)
		}
		t, err := command{name: one.Command, arg: one.Param, max: one.MaxLength}.compile()
		if err != nil {
			return nil, text, fmt.Errorf("operators[%d] %s: %w", n, one.Command, err)
		}
		terms = append(terms, t)
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		for n := range terms {
			if out, ok := terms[n].append(dst, i); ok {
				return out, true
			}
		}
		return dst, false
	}, text, nil
}
