package hcm

import (
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/histogram"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/router"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Routes gives the route table of the moment.
type Routes interface {
	// Table is nil while the configuration has not come.
	Table() *route.Table
}

// Recorder is told of each exchange when it is over: the access log, the metrics.
// It may not keep the info, nor strings of it.
type Recorder interface {
	Record(info *streaminfo.Info)
}

// Follower is a Recorder that counts exchanges of gRPC also while they last.
type Follower interface {
	Recorder
	// Lasts is told of an exchange that takes long, in its own goroutine, and again when
	// more is known of it. Until Record or Forget the info's messages may be looked at.
	Lasts(info *streaminfo.Info)
	// Forget ends that of an exchange that is not recorded.
	Forget(info *streaminfo.Info)
}

// named is a filter with the name by which routes configure it.
type named struct {
	name   string
	filter filter.Filter
	// disabled: it runs only where a route has a configuration for it.
	disabled bool
}

// Manager serves the exchanges of one filter chain. It is made by [Compile] and not
// changed.
type Manager struct {
	StatPrefix string
	routes     Routes
	filters    []named
	responders []named // those of filters that see responses, in the reverse order
	router     *router.Router
	refusal    string // why nothing is served, or ""
	recorders  []Recorder
	followers  []Follower // of the recorders
	guard      *guard.Guard
	codec      hcmv3.HttpConnectionManager_CodecType
	options    codec.Options
	upgrades   map[string]bool

	http10            bool // is taken
	serverName        string
	serverHeader      hcmv3.HttpConnectionManager_ServerHeaderTransformation
	via               string
	normalizePath     bool
	mergeSlashes      bool
	slashes           hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction
	stripPort         stripPort
	stripDot          bool // that ends the host
	traced            bool // by the configuration, so that clients are told the operation
	useRemoteAddress  bool
	scheme            string // that takes the place of the client's, or ""
	forwardedPort     bool   // is told in x-forwarded-port
	skipXFFAppend     bool
	trustedHops       uint32
	internal          []netip.Prefix
	generateRequestID bool
	preserveRequestID bool
	returnRequestID   bool
	forwardCert       hcmv3.HttpConnectionManager_ForwardClientCertDetails
	certDetails       *hcmv3.HttpConnectionManager_SetCurrentClientCertDetails
	streamIdle        time.Duration
	requestTimeout    time.Duration
	maxStreamDuration time.Duration
	slow              slowHead // what ends a head that does not

	timeouts timeoutStats
	active   atomic.Int64 // exchanges
	total    atomic.Uint64
	times    histogram.Lazy   // of exchanges that were answered
	codes    [6]atomic.Uint64 // by their hundreds
}

type stripPort uint8

const (
	keepPort stripPort = iota
	stripMatching
	stripAny
)

// Source gives the manager of the moment, so that a connection follows a change of its
// configuration. It never returns nil.
type Source interface {
	Manager() *Manager
	// Drain ends the connections that are served, or is nil.
	Drain() *codec.Drain
}

// quietTime is how long a connection waits for its next request in a goroutine.
const quietTime = time.Second

// Serve runs a connection until it ends or parks. It works in the caller's goroutine.
func Serve(conn codec.Conn, info *streaminfo.Connection, protocol codec.Protocol, source Source) error {
	m := source.Manager()
	handler := func(x codec.Exchange) { source.Manager().exchange(info, x) }
	options := m.options
	options.Park = quietTime
	if d := source.Drain(); d != nil {
		options.Drain = d
	}
	options.Refused = func(r *codec.Refusal) { source.Manager().rejected(info, r) }
	switch m.codec {
	case hcmv3.HttpConnectionManager_HTTP1:
		protocol = codec.HTTP1
	case hcmv3.HttpConnectionManager_HTTP2:
		protocol = codec.HTTP2
	}
	switch protocol {
	case codec.HTTP2:
		return codec.ServeHTTP2(conn, options, handler)
	case codec.HTTP:
		return codec.ServeHTTP(conn, options, handler)
	}
	return codec.ServeHTTP1(conn, options, handler)
}

// Refusing answers every request with 503, since what the configuration says cannot be
// enforced. Whoever recorders name is told of each.
func Refusing(reason string, recorders []Recorder, o codec.Options) *Manager {
	m := &Manager{refusal: reason, recorders: recorders, serverName: defaultServerName, options: o}
	m.slow = m.slowHead(0)
	return m
}

// rejected records a request that the codec answered itself, since it was none, or that
// ended in its head.
func (m *Manager) rejected(c *streaminfo.Connection, r *codec.Refusal) {
	info := streaminfo.Info{Connection: c, Start: r.Began, Response: &r.Response, ResponseCode: r.Response.Status, Details: r.Err.Error()}
	if info.Start.IsZero() {
		info.Start = time.Now()
	}
	info.Duration = time.Since(info.Start)
	switch {
	case r.Response.Status == 0:
		info.Response, info.Flags, info.Details = nil, streaminfo.DownstreamConnectionTermination, "downstream_remote_disconnect"
	case errors.Is(r.Err, codec.ErrSlowHead):
		r.Body, info.Flags, info.Details = m.slow.text, m.slow.flags, m.slow.details
	default:
		info.Flags = streaminfo.DownstreamProtocolError
	}
	if info.Response != nil {
		m.sign(info.Response)
		info.BytesSent = uint64(len(r.Body))
		m.times.Observe(info.Duration)
	}
	m.total.Add(1)
	m.record(&info)
}

func (m *Manager) record(info *streaminfo.Info) {
	m.timeouts.count(info.Details)
	if i := info.ResponseCode / 100; i < len(m.codes) {
		m.codes[i].Add(1)
	}
	for _, r := range m.recorders {
		r.Record(info)
	}
}

// Stats are Envoy's counters of a connection manager.
func (m *Manager) Stats() map[string]uint64 {
	prefix := "http." + m.StatPrefix + "."
	out := map[string]uint64{prefix + "downstream_rq_total": m.total.Load(), prefix + "downstream_rq_active": uint64(max(m.active.Load(), 0))}
	for i, name := range []string{"", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		if i > 0 {
			out[prefix+"downstream_rq_"+name] = m.codes[i].Load()
		}
	}
	m.timeouts.into(prefix, out)
	for _, f := range m.filters {
		if c, ok := f.filter.(filter.Counting); ok {
			for name, v := range c.Stats() {
				out[prefix+name] += v
			}
		}
	}
	return out
}

// Timings adds to each of Envoy's histograms of a connection manager what is counted
// here.
func (m *Manager) Timings(into map[string]*histogram.Snapshot) {
	name := "http." + m.StatPrefix + ".downstream_rq_time"
	if into[name] == nil {
		into[name] = &histogram.Snapshot{}
	}
	into[name].Add(m.times.Load())
}
