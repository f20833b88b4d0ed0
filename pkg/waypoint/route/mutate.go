package route

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/format"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// mutations are changes of header fields: first some are removed, then all new
// values are made from what is there, then they are set and added.
type mutations struct {
	remove []string
	add    []mutation
}

type mutation struct {
	name      string
	action    corev3.HeaderValueOption_HeaderAppendAction
	keepEmpty bool
	// combined values are appended to the line there is.
	combined bool
	value    *format.Format
}

func newMutations(add []*corev3.HeaderValueOption, remove []string, field string) (*mutations, error) {
	if len(add)+len(remove) == 0 {
		return nil, nil
	}
	m := &mutations{}
	for i, name := range remove {
		name = strings.ToLower(name)
		if name == "" || name[0] == ':' || name == "host" {
			return nil, fmt.Errorf("%s_to_remove[%d]: %q cannot be removed", field, i, name)
		}
		m.remove = append(m.remove, name)
	}
	for i, h := range add {
		name := strings.ToLower(h.GetHeader().GetKey())
		if name == "" || name[0] == ':' || name == "host" {
			return nil, fmt.Errorf("%s_to_add[%d]: %q cannot be changed here", field, i, name)
		}
		text := h.GetHeader().GetValue()
		if text == "" {
			text = string(h.GetHeader().GetRawValue())
		}
		v, err := format.CompileOmit(text)
		if err != nil {
			return nil, fmt.Errorf("%s_to_add[%d] %q: %w", field, i, name, err)
		}
		one := mutation{name: name, action: h.GetAppendAction(), keepEmpty: h.GetKeepEmptyValue(), value: v}
		if a := h.GetAppend(); a != nil { //nolint:staticcheck // old configurations have it
			one.action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			if !a.GetValue() {
				one.action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
			}
		}
		one.combined = field != "response_headers" && message.Combined(name)
		m.add = append(m.add, one)
	}
	return m, nil
}

// requestFields changes a request's fields.
func (m *mutations) requestFields(in *Input) {
	if m != nil {
		m.apply(&in.Request.Fields, in.Info)
	}
}

func (m *mutations) apply(fields *message.Fields, info *streaminfo.Info) {
	for _, name := range m.remove {
		fields.Del(name)
	}
	if len(m.add) == 0 {
		return
	}
	var small [8]string
	values := small[:0]
	for i := range m.add {
		values = append(values, m.add[i].value.String(info))
	}
	// What is to be set is set before anything is added; whether a field is there is
	// asked before both.
	var there [8]bool
	exists := there[:0]
	for i := range m.add {
		_, ok := fields.Lookup(m.add[i].name)
		exists = append(exists, ok)
	}
	for i := range m.add {
		one := &m.add[i]
		if values[i] == "" && !one.keepEmpty {
			continue
		}
		switch one.action {
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
			fields.Set(one.name, values[i])
		case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
			if exists[i] {
				fields.Set(one.name, values[i])
			}
		}
	}
	for i := range m.add {
		one := &m.add[i]
		if values[i] == "" && !one.keepEmpty {
			continue
		}
		switch one.action {
		case corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD:
			if old, ok := fields.Joined(one.name); ok && one.combined {
				fields.Set(one.name, old+","+values[i])
			} else {
				fields.Add(one.name, values[i])
			}
		case corev3.HeaderValueOption_ADD_IF_ABSENT:
			if !exists[i] {
				fields.Add(one.name, values[i])
			}
		}
	}
}

// inOrder are the scopes whose changes are made, one after another: the chosen
// cluster's, then from the route outwards, or inwards if the most specific shall
// win.
func (r *Route) inOrder(c Choice) [4]*scope {
	if r.host.common.specificWins {
		return [...]*scope{c.scope(), &r.host.common.scope, &r.host.scope, &r.scope}
	}
	return [...]*scope{c.scope(), &r.scope, &r.host.scope, &r.host.common.scope}
}

// ResponseHeaders makes the configuration's changes of a response's fields. It is
// for local replies on the route as well.
func (r *Route) ResponseHeaders(resp *message.Response, info *streaminfo.Info, c Choice) {
	for _, s := range r.inOrder(c) {
		if s != nil && s.response != nil {
			s.response.apply(&resp.Fields, info)
		}
	}
}
