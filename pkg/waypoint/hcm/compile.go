package hcm

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
)

// Envoy's defaults.
const (
	defaultStreamIdle = 5 * time.Minute
	defaultServerName = "envoy"
	defaultMaxFields  = 100
)

// The windows of HTTP/2 clients where the configuration names none, and what the streams
// of one may hold for servers that are slow, in bytes.
const (
	streamWindow     = 256 << 10
	connectionWindow = 1 << 20
	maxBuffered      = 2 << 20
)

// Dependencies are what a connection manager is made of beside its configuration.
type Dependencies struct {
	// Routes finds the table of a name, or of an inline configuration. It must be
	// non-nil.
	Routes func(*hcmv3.HttpConnectionManager) (Routes, error)
	// Filter compiles an HTTP filter: nil for one that has nothing to do. It must be
	// non-nil.
	Filter func(f *hcmv3.HttpFilter) (filter.Filter, error)
	// Recorders compiles access loggers and adds what counts. It must be non-nil.
	Recorders func(*hcmv3.HttpConnectionManager) ([]Recorder, error)
	// Router is what a router is made of; its own options come from the filter.
	Router router.Options
	// Codec is what codecs are made with; limits come from the configuration.
	Codec codec.Options
}

const routerName = "envoy.filters.http.router"

// Compile makes a connection manager. An error names the field.
func Compile(c *hcmv3.HttpConnectionManager, d Dependencies) (*Manager, error) {
	m := &Manager{
		StatPrefix: c.GetStatPrefix(), codec: c.GetCodecType(), options: d.Codec, upgrades: map[string]bool{},
		guard: d.Router.Guard, http10: c.GetHttpProtocolOptions().GetAcceptHttp_10(),
		serverName: c.GetServerName(), serverHeader: c.GetServerHeaderTransformation(), via: c.GetVia(),
		normalizePath: c.GetNormalizePath().GetValue(), mergeSlashes: c.GetMergeSlashes(), slashes: c.GetPathWithEscapedSlashesAction(),
		useRemoteAddress: c.GetUseRemoteAddress().GetValue(), skipXFFAppend: c.GetSkipXffAppend(), trustedHops: c.GetXffNumTrustedHops(),
		generateRequestID: valueOr(c.GetGenerateRequestId(), true), preserveRequestID: c.GetPreserveExternalRequestId(), returnRequestID: c.GetAlwaysSetRequestIdInResponse(),
		forwardCert: c.GetForwardClientCertDetails(), certDetails: c.GetSetCurrentClientCertDetails(),
		streamIdle: durationOr(c.GetStreamIdleTimeout(), defaultStreamIdle), requestTimeout: c.GetRequestTimeout().AsDuration(),
		maxStreamDuration: c.GetCommonHttpProtocolOptions().GetMaxStreamDuration().AsDuration(),
	}
	if m.serverName == "" {
		m.serverName = defaultServerName
	}
	if err := m.unsupported(c); err != nil {
		return nil, err
	}
	m.scheme, m.forwardedPort = c.GetSchemeHeaderTransformation().GetSchemeToOverwrite(), c.GetAppendXForwardedPort()
	m.stripDot, m.traced = c.GetStripTrailingHostDot(), c.GetTracing() != nil
	switch {
	case c.GetStripAnyHostPort():
		m.stripPort = stripAny
	case c.GetStripMatchingHostPort():
		m.stripPort = stripMatching
	}
	for _, u := range c.GetUpgradeConfigs() {
		m.upgrades[strings.ToLower(u.GetUpgradeType())] = valueOr(u.GetEnabled(), true)
	}
	for i, r := range c.GetInternalAddressConfig().GetCidrRanges() {
		a, err := netip.ParseAddr(r.GetAddressPrefix())
		if err != nil {
			return nil, fmt.Errorf("internal_address_config.cidr_ranges[%d]: %w", i, err)
		}
		m.internal = append(m.internal, netip.PrefixFrom(a, int(r.GetPrefixLen().GetValue())).Masked())
	}
	m.limits(c)
	var err error
	if m.routes, err = d.Routes(c); err != nil {
		return nil, fmt.Errorf("route_config: %w", err)
	}
	if m.recorders, err = d.Recorders(c); err != nil {
		return nil, fmt.Errorf("access_log: %w", err)
	}
	for _, r := range m.recorders {
		if f, ok := r.(Follower); ok {
			m.followers = append(m.followers, f)
		}
	}
	return m, m.chain(c.GetHttpFilters(), d)
}

// chain compiles the filters; the router is the last.
func (m *Manager) chain(filters []*hcmv3.HttpFilter, d Dependencies) error {
	if len(filters) == 0 {
		return errors.New("http_filters: no router")
	}
	for i, f := range filters {
		at := func(err error) error { return fmt.Errorf("http_filters[%d] %s: %w", i, f.GetName(), err) }
		var rc routerv3.Router
		if f.GetTypedConfig().MessageIs(&rc) {
			if i != len(filters)-1 {
				return at(errors.New("the router must be the last filter"))
			}
			if err := f.GetTypedConfig().UnmarshalTo(&rc); err != nil {
				return at(err)
			}
			o := d.Router
			o.SuppressEnvoyHeaders = rc.GetSuppressEnvoyHeaders()
			var err error
			if m.router, err = router.New(o); err != nil {
				return at(err)
			}
			continue
		}
		compiled, err := d.Filter(f)
		if err != nil {
			return at(err)
		}
		if compiled == nil {
			continue
		}
		n := named{f.GetName(), compiled, f.GetDisabled()}
		m.filters = append(m.filters, n)
		if _, ok := compiled.(filter.ResponseFilter); ok {
			m.responders = append([]named{n}, m.responders...)
		}
	}
	if m.router == nil {
		return fmt.Errorf("http_filters: the last one is not %s", routerName)
	}
	return nil
}

// unsupported refuses what would change who may do what, or where requests go, and is
// not done here.
func (m *Manager) unsupported(c *hcmv3.HttpConnectionManager) error {
	for _, u := range []struct {
		field string
		set   bool
	}{
		{"scoped_routes", c.GetScopedRoutes() != nil},
		{"original_ip_detection_extensions", len(c.GetOriginalIpDetectionExtensions()) > 0},
		{"early_header_mutation_extensions", len(c.GetEarlyHeaderMutationExtensions()) > 0},
		{"forward_client_cert_matcher", c.GetForwardClientCertMatcher() != nil},
		{"path_normalization_options", c.GetPathNormalizationOptions() != nil},
		{"local_reply_config", c.GetLocalReplyConfig() != nil},
		{"codec_type: HTTP3", c.GetCodecType() == hcmv3.HttpConnectionManager_HTTP3},
	} {
		if u.set {
			return fmt.Errorf("%s is not supported", u.field)
		}
	}
	return nil
}

func (m *Manager) limits(c *hcmv3.HttpConnectionManager) {
	common := c.GetCommonHttpProtocolOptions()
	o := &m.options
	o.Limits = h1.Limits{Head: int(valueOr32(c.GetMaxRequestHeadersKb(), 60)) << 10, Fields: int(valueOr32(common.GetMaxHeadersCount(), defaultMaxFields))}
	if t := common.GetIdleTimeout(); t != nil {
		if o.IdleTimeout = t.AsDuration(); o.IdleTimeout == 0 {
			o.IdleTimeout = -1
		}
	}
	m.slow = m.slowHead(c.GetRequestHeadersTimeout().AsDuration())
	o.HeadTimeout = m.slow.after
	o.MaxRequests = int(common.GetMaxRequestsPerConnection().GetValue())
	h2 := c.GetHttp2ProtocolOptions()
	if n := h2.GetMaxConcurrentStreams(); n != nil {
		o.HTTP2.MaxStreams = n.GetValue()
	}
	o.HTTP2.ExtendedConnect = h2.GetAllowConnect()
	// What a client may send unread is memory that it takes of ours.
	o.HTTP2.StreamWindow = valueOr32(h2.GetInitialStreamWindowSize(), streamWindow)
	o.HTTP2.ConnWindow = valueOr32(h2.GetInitialConnectionWindowSize(), connectionWindow)
	o.HTTP2.MaxBuffered = maxBuffered
}

func valueOr(v *wrapperspb.BoolValue, def bool) bool {
	if v == nil {
		return def
	}
	return v.GetValue()
}

func valueOr32(v *wrapperspb.UInt32Value, def uint32) uint32 {
	if v == nil {
		return def
	}
	return v.GetValue()
}

// durationOr is a duration that may be set to zero.
func durationOr(v *durationpb.Duration, def time.Duration) time.Duration {
	if v == nil {
		return def
	}
	return v.AsDuration()
}
