package route

import (
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/format"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/matcher"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// Route is what happens with the requests that match it: exactly one of Forward,
// Redirect and Direct is set.
type Route struct {
	scope
	// Name is as the configuration has it, or "".
	Name     string
	Forward  *Forward
	Redirect *Redirect
	Direct   *Direct
	// BufferLimit bounds in bytes what is kept of a request's body for another try or a
	// mirror, or is nil.
	BufferLimit *uint64
	// Decorator is the operation that traces show, or "".
	Decorator string
	// Tracing is the route's own sampling, or nil.
	Tracing *routev3.Tracing
	// Metadata is the route's filter metadata, or nil.
	Metadata streaminfo.Metadata

	match match
	host  *hostShell
	// warnings say what the route asks for and does not get.
	warnings []string
}

// VirtualHost is the name of the virtual host that the route is of.
func (r *Route) VirtualHost() string { return r.host.name }

// AttemptCountInRequest reports whether upstream is told the number of the try, in
// x-envoy-attempt-count.
func (r *Route) AttemptCountInRequest() bool { return r.host.attemptsInRequest }

// AttemptCountInResponse reports whether downstream is told the number of tries.
func (r *Route) AttemptCountInResponse() bool { return r.host.attemptsInResponse }

// scopes are where a filter's configuration may stand, most specific first; some may
// be nil.
func (r *Route) scopes(c Choice) [4]*scope {
	return [...]*scope{c.scope(), &r.scope, &r.host.scope, &r.host.common.scope}
}

// Filter is the most specific configuration of a filter that the options' Filter
// compiled for the route, or nil.
func (r *Route) Filter(name string, c Choice) any {
	for _, s := range r.scopes(c) {
		if s == nil {
			continue
		}
		if f, ok := s.filters[name]; ok && f.config != nil {
			return f.config
		}
	}
	return nil
}

// Disabled tells whether a filter is not to run, by the most specific configuration
// that there is for it; otherwise is what holds where there is none.
func (r *Route) Disabled(name string, c Choice, otherwise bool) bool {
	for _, s := range r.scopes(c) {
		if s == nil {
			continue
		}
		if f, ok := s.filters[name]; ok {
			return f.disabled
		}
	}
	return otherwise
}

// Forward is a RouteAction. Durations are nil where the configuration has none,
// zero where it turns a limit off.
type Forward struct {
	// NotFoundStatus answers for a cluster that is not there.
	NotFoundStatus int
	// MetadataMatch is what endpoints must have (envoy.lb), or nil.
	MetadataMatch map[string]any
	// HighPriority requests have their own circuit breakers.
	HighPriority bool

	// Timeout is for the whole response; 0 is none. Envoy's default is 15 s.
	Timeout        time.Duration
	TimeoutText    string // Timeout in milliseconds, as a field says it
	IdleTimeout    *time.Duration
	FlushTimeout   *time.Duration
	MaxGRPCTimeout *time.Duration
	GRPCOffset     *time.Duration
	// ByDuration: the route has a max_stream_duration, whose fields follow. They stand in
	// the place of Timeout and what is above of gRPC, which are not set then.
	ByDuration      bool
	MaxDuration     *time.Duration
	GRPCHeaderMax   *time.Duration
	GRPCHeaderShift *time.Duration

	// Retry is nil where nothing is tried again.
	Retry   *Retry
	Mirrors []*Mirror
	// Upgrades are the protocols, in lower case, that the route allows or forbids.
	Upgrades map[string]bool
	// ConnectTerminates: the payload of a CONNECT goes on as TCP.
	ConnectTerminates bool
	// AutoHostRewrite makes the authority the chosen endpoint's host name.
	AutoHostRewrite bool
	// AppendForwardedHost keeps a rewritten authority in x-forwarded-host.
	AppendForwardedHost bool

	cluster       string
	clusterHeader string
	weighted      *weighted
	hash          []hashPolicy

	prefixRewrite   string
	regexRewrite    *matcher.Rewrite
	templateRewrite *templateRewrite
	hostLiteral     string
	hostHeader      string
	hostRegex       *matcher.Rewrite
}

// Mirror is a RequestMirrorPolicy.
type Mirror struct {
	cluster, clusterHeader string
	fraction               *fraction
	// KeepHost leaves the authority as it is; else "-shadow" is appended to its host.
	KeepHost bool
	// HostLiteral replaces the authority, or is "".
	HostLiteral string
	mutations   *mutations
}

// Cluster is where the copy goes, "" for nowhere: the draw left it out or the named
// header is not there.
func (m *Mirror) Cluster(in *Input) string {
	if m.fraction != nil && !m.fraction.hit(in.Random) {
		return ""
	}
	if m.clusterHeader == "" {
		return m.cluster
	}
	v, _ := in.Request.Value(m.clusterHeader)
	return v
}

// Rewrite makes the copy's own header changes; in is the copy.
func (m *Mirror) Rewrite(in *Input) { m.mutations.requestFields(in) }

// Direct is a DirectResponseAction.
type Direct struct {
	Status int
	body   string
	format *format.Format
	json   *format.JSON
	// ContentType is of the body, or "": "text/plain".
	ContentType string
}

// Body is the response's body.
func (d *Direct) Body(info *streaminfo.Info) string {
	if d.format == nil && d.json == nil {
		return d.body
	}
	// %LOCAL_REPLY_BODY% is the body for the format, and empty for the log.
	before := info.LocalReplyBody
	info.LocalReplyBody = d.body
	defer func() { info.LocalReplyBody = before }()
	if d.format != nil {
		return d.format.String(info)
	}
	return string(d.json.Append(nil, info)) + "\n"
}
