package record

import (
	"fmt"
	"log/slog"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// filter tells whether an exchange is logged; nil logs all.
type filter func(i *streaminfo.Info) bool

// newFilter compiles a filter. One that is not known here logs everything: better too
// much than silence.
func newFilter(c *accesslogv3.AccessLogFilter, log *slog.Logger) (filter, error) {
	switch f := c.GetFilterSpecifier().(type) {
	case nil:
		return nil, nil
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		return compare(f.StatusCodeFilter.GetComparison(), func(i *streaminfo.Info) uint64 { return uint64(i.ResponseCode) })
	case *accesslogv3.AccessLogFilter_DurationFilter:
		return compare(f.DurationFilter.GetComparison(), func(i *streaminfo.Info) uint64 { return uint64(i.Duration.Milliseconds()) })
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		return func(i *streaminfo.Info) bool { return i.Flags != 0 }, nil
	case *accesslogv3.AccessLogFilter_HeaderFilter:
		h, err := matcher.NewHeader(f.HeaderFilter.GetHeader())
		if err != nil {
			return nil, fmt.Errorf("filter: %w", err)
		}
		return func(i *streaminfo.Info) bool { return i.Request != nil && h.Request(i.Request) }, nil
	case *accesslogv3.AccessLogFilter_AndFilter:
		return join(f.AndFilter.GetFilters(), log, false)
	case *accesslogv3.AccessLogFilter_OrFilter:
		return join(f.OrFilter.GetFilters(), log, true)
	}
	log.Warn("access log filter is not supported: everything is logged", "filter", fmt.Sprintf("%T", c.GetFilterSpecifier()))
	return nil, nil
}

func compare(c *accesslogv3.ComparisonFilter, value func(*streaminfo.Info) uint64) (filter, error) {
	want := uint64(c.GetValue().GetDefaultValue())
	switch c.GetOp() {
	case accesslogv3.ComparisonFilter_EQ:
		return func(i *streaminfo.Info) bool { return value(i) == want }, nil
	case accesslogv3.ComparisonFilter_NE:
		return func(i *streaminfo.Info) bool { return value(i) != want }, nil
	case accesslogv3.ComparisonFilter_GE:
		return func(i *streaminfo.Info) bool { return value(i) >= want }, nil
	case accesslogv3.ComparisonFilter_LE:
		return func(i *streaminfo.Info) bool { return value(i) <= want }, nil
	}
	return nil, fmt.Errorf("filter: comparison %s is not supported", c.GetOp())
}

func join(list []*accesslogv3.AccessLogFilter, log *slog.Logger, any bool) (filter, error) {
	var parts []filter
	for _, c := range list {
		f, err := newFilter(c, log)
		if err != nil {
			return nil, err
		}
		if f == nil {
			f = func(*streaminfo.Info) bool { return true }
		}
		parts = append(parts, f)
	}
	return func(i *streaminfo.Info) bool {
		for _, f := range parts {
			if f(i) == any {
				return any
			}
		}
		return !any
	}, nil
}
