package cluster

import (
	"errors"
	"fmt"
	"math"
	"net"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/h2"
	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// optionsKey is under which a cluster has its HTTP options.
const optionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// protocol is how a cluster's HTTP version is chosen.
type protocol uint8

const (
	http1 protocol = iota
	http2
	// asDownstream takes the client's.
	asDownstream
	// byALPN takes what the TLS handshake agreed on.
	byALPN
)

// Envoy's defaults.
const (
	defaultIdle    = time.Hour
	defaultStreams = 1024
)

// http2Options are a cluster's, where it says something.
type http2Options struct {
	streamWindow, connectionWindow uint32 // bytes
	interval, timeout              time.Duration
}

// config puts them over the process's.
func (o http2Options) config(c h2.Config) h2.Config {
	if o.streamWindow > 0 {
		c.StreamWindow = o.streamWindow
	}
	if o.connectionWindow > 0 {
		c.ConnWindow = o.connectionWindow
	}
	if o.interval > 0 {
		c.PingInterval, c.PingTimeout = o.interval, o.timeout
	}
	return c
}

// link is how a cluster's connections are made: what drains them when it changes.
type link struct {
	// key is equal where all else is.
	key            string
	connectTimeout time.Duration
	protocol       protocol
	idle           time.Duration // 0 is never
	maxDuration    time.Duration // 0 is none
	maxRequests    uint64        // per connection; 0 is no limit
	maxStreams     int
	keepalive      net.KeepAliveConfig
	http2          http2Options
	sockets        sockets
}

func linkOf(c *clusterv3.Cluster) (*link, string, error) {
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(&clusterv3.Cluster{
		ConnectTimeout: c.GetConnectTimeout(), MaxRequestsPerConnection: c.GetMaxRequestsPerConnection(), //nolint:staticcheck // still sent
		CommonHttpProtocolOptions: c.GetCommonHttpProtocolOptions(), Http2ProtocolOptions: c.GetHttp2ProtocolOptions(), //nolint:staticcheck // still sent
		UpstreamHttpProtocolOptions:   c.GetUpstreamHttpProtocolOptions(), //nolint:staticcheck // still sent
		TypedExtensionProtocolOptions: c.GetTypedExtensionProtocolOptions(), TransportSocket: c.GetTransportSocket(),
		TransportSocketMatches: c.GetTransportSocketMatches(), UpstreamConnectionOptions: c.GetUpstreamConnectionOptions(),
	})
	if err != nil {
		return nil, "cluster", err
	}
	l := &link{key: string(key), connectTimeout: duration(c.GetConnectTimeout(), defaultConnectTimeout), idle: defaultIdle, maxStreams: defaultStreams}
	if l.connectTimeout <= 0 {
		return nil, "connect_timeout", errors.New("must be more than 0")
	}
	if k := c.GetUpstreamConnectionOptions().GetTcpKeepalive(); k != nil {
		seconds := func(n uint32) time.Duration { return time.Duration(n) * time.Second }
		l.keepalive = net.KeepAliveConfig{Enable: true, Idle: seconds(k.GetKeepaliveTime().GetValue()),
			Interval: seconds(k.GetKeepaliveInterval().GetValue()), Count: int(k.GetKeepaliveProbes().GetValue())}
	}
	l.maxRequests = uint64(c.GetMaxRequestsPerConnection().GetValue()) //nolint:staticcheck // still sent
	names := c.GetUpstreamHttpProtocolOptions()                        //nolint:staticcheck // still sent
	if options := c.GetTypedExtensionProtocolOptions()[optionsKey]; options != nil {
		o := &httpv3.HttpProtocolOptions{}
		if err := options.UnmarshalTo(o); err != nil {
			return nil, "typed_extension_protocol_options", err
		}
		if err := l.options(o); err != nil {
			return nil, "typed_extension_protocol_options." + optionsKey, err
		}
		names = o.GetUpstreamHttpProtocolOptions()
	} else {
		l.common(c.GetCommonHttpProtocolOptions())      //nolint:staticcheck // still sent
		if o := c.GetHttp2ProtocolOptions(); o != nil { //nolint:staticcheck // still sent
			l.protocol = http2
			l.streams(o)
		}
	}
	field, err := l.sockets.compile(c, names)
	if err == nil && l.protocol == byALPN && l.sockets.first.secure == nil && len(l.sockets.matches) == 0 {
		field, err = "typed_extension_protocol_options."+optionsKey+".auto_config", errors.New("needs a TLS transport socket: the version is agreed on in its handshake")
	}
	return l, field, err
}

func (l *link) options(o *httpv3.HttpProtocolOptions) error {
	l.common(o.GetCommonHttpProtocolOptions())
	switch p := o.GetUpstreamProtocolOptions().(type) {
	case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_:
		switch e := p.ExplicitHttpConfig.GetProtocolConfig().(type) {
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions:
			l.protocol = http2
			l.streams(e.Http2ProtocolOptions)
		case *httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http3ProtocolOptions:
			return errors.New("HTTP/3 is not supported")
		}
	case *httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig:
		l.protocol = asDownstream
		l.streams(p.UseDownstreamProtocolConfig.GetHttp2ProtocolOptions())
	case *httpv3.HttpProtocolOptions_AutoConfig:
		l.protocol = byALPN
		l.streams(p.AutoConfig.GetHttp2ProtocolOptions())
	}
	return nil
}

func (l *link) common(o *corev3.HttpProtocolOptions) {
	l.idle = duration(o.GetIdleTimeout(), defaultIdle)
	l.maxDuration = o.GetMaxConnectionDuration().AsDuration()
	if o.GetMaxRequestsPerConnection() != nil {
		l.maxRequests = uint64(o.GetMaxRequestsPerConnection().GetValue())
	}
}

func (l *link) streams(o *corev3.Http2ProtocolOptions) {
	if n := o.GetMaxConcurrentStreams().GetValue(); n > 0 {
		l.maxStreams = int(min(n, math.MaxInt32))
	}
	l.http2 = http2Options{
		streamWindow:     o.GetInitialStreamWindowSize().GetValue(),
		connectionWindow: o.GetInitialConnectionWindowSize().GetValue(),
		interval:         o.GetConnectionKeepalive().GetInterval().AsDuration(),
		timeout:          o.GetConnectionKeepalive().GetTimeout().AsDuration(),
	}
}

// version is the HTTP version for a request; known is false where the handshake
// decides.
func (l *link) version(downstream message.Version) (v message.Version, known bool) {
	switch l.protocol {
	case http2:
		return message.HTTP2, true
	case asDownstream:
		if downstream == message.HTTP2 {
			return message.HTTP2, true
		}
	case byALPN:
		return message.HTTP2, false
	case http1:
	}
	return message.HTTP11, true
}

func (p protocol) String() string {
	switch p {
	case http1:
		return "HTTP/1.1"
	case http2:
		return "HTTP/2"
	case asDownstream:
		return "the client's"
	case byALPN:
		return "by ALPN"
	}
	return fmt.Sprint(uint8(p))
}
