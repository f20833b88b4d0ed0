package filter

import (
	"fmt"
	"maps"

	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/format"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// State puts formatted values into the filter state of a connection (Envoy's
// set_filter_state). With whom it is shared is not looked at: internal listeners are
// calls here, and all see the same.
type State struct{ values []stateValue }

type stateValue struct {
	key       string
	format    *format.Format
	skipEmpty bool
}

// CompileState compiles the values of either set_filter_state filter.
func CompileState(list []*statev3.FilterStateValue) (*State, error) {
	s := &State{}
	for i, v := range list {
		key := v.GetObjectKey()
		if key == "" {
			key = v.GetFactoryKey()
		}
		text := v.GetFormatString().GetTextFormatSource().GetInlineString()
		if text == "" {
			text = v.GetFormatString().GetTextFormat() //nolint:staticcheck // still sent
		}
		f, err := format.CompileOmit(text)
		if err != nil {
			return nil, fmt.Errorf("[%d] %s: %w", i, key, err)
		}
		s.values = append(s.values, stateValue{key, f, v.GetSkipIfEmpty()})
	}
	return s, nil
}

// Set puts the values in.
func (s *State) Set(i *streaminfo.Info) {
	for _, v := range s.values {
		text := v.format.String(i)
		if text == "" && v.skipEmpty {
			continue
		}
		if i.FilterState == nil {
			i.FilterState = map[string]string{}
		}
		i.FilterState[v.key] = text
	}
}

type setState struct{ state *State }

func newState(_ string, config *anypb.Any) (Filter, error) {
	var c httpv3.Config
	if err := config.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	s, err := CompileState(c.GetOnRequestHeaders())
	if err != nil {
		return nil, fmt.Errorf("on_request_headers: %w", err)
	}
	return setState{s}, nil
}

// Request implements [Filter]. Other exchanges of the connection see nothing of it, as
// with Envoy, whose requests have a filter state of their own.
func (f setState) Request(x *Context) *Reply {
	own := *x.Info.Connection
	own.FilterState = maps.Clone(own.FilterState)
	x.Info.Connection = &own
	f.state.Set(x.Info)
	return nil
}
