// Package streaminfo is what is known of one connection and one exchange, for
// matchers, formats, logs and metrics: Envoy's StreamInfo. Its goroutine alone
// touches an Info.
package streaminfo

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
)

// Connection is what all exchanges of a downstream connection share. It is not
// changed once the first exchange has begun.
type Connection struct {
	// Remote is the client; behind a tunnel the address that the tunnel names.
	Remote netip.AddrPort
	// DirectRemote is the socket's own peer.
	DirectRemote netip.AddrPort
	// Local is the original destination: the service's address and port.
	Local netip.AddrPort
	// Authority is the tunnel's, as it was asked for, or "".
	Authority string
	// TLS is the state of the tunnel or the connection, or nil: plain.
	TLS *tls.ConnectionState
	// Tunnelled: TLS is a tunnel's, and ends before the connection's own bytes.
	Tunnelled bool
	// PeerURISAN and LocalURISAN are SPIFFE ids, or "".
	PeerURISAN, LocalURISAN string
	// ServerName is the SNI, or "".
	ServerName string
	// ForwardTo is the host and port that a dynamic forward proxy is to take the
	// connection to, or "".
	ForwardTo string
	// FilterState holds strings by key, such as io.istio.peer_principal.
	FilterState map[string]string
	// Chain is the filter chain's name.
	Chain string
	// Waited is how long it took until its first bytes told its protocol, or until
	// they were not waited for any more.
	Waited time.Duration
	// Source is the workload that calls, as far as it is known.
	Source *Workload
	// ID numbers the process's connections.
	ID uint64
}

// AddrPort is a TCP socket's address as a Connection holds it, IPv4-mapped ones
// unmapped; of what is not TCP it is the zero value.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// Info is one exchange, or one TCP connection.
type Info struct {
	*Connection
	Start time.Time
	// Request is as the route saw it, nil for TCP; OriginalPath is before a rewrite,
	// or "".
	Request      *message.Request
	OriginalPath string
	// Response is what was sent downstream, or nil; Trailers with it.
	Response *message.Response
	Trailers message.Fields
	// ResponseCode is 0 where nothing was answered.
	ResponseCode int
	Flags        Flags
	// Details says why the code is what it is, in Envoy's words ("via_upstream").
	Details string
	// Termination is %CONNECTION_TERMINATION_DETAILS%, TransportFailure
	// %UPSTREAM_TRANSPORT_FAILURE_REASON%.
	Termination, TransportFailure string

	RouteName, VirtualHost string
	// Cluster is the chosen cluster; the host is the last one tried.
	Cluster                       string
	UpstreamHost                  string // as Envoy writes it
	UpstreamRemote, UpstreamLocal netip.AddrPort
	UpstreamURISAN                string
	UpstreamLocalURISAN           string
	// UpstreamProtocol is as Envoy writes it ("HTTP/2"), or "".
	UpstreamProtocol string
	Attempts         int
	// HostMetadata and ClusterMetadata are the chosen ones' filter metadata, or nil.
	HostMetadata, ClusterMetadata Metadata
	// Dynamic is what filters left for others and the log.
	Dynamic Metadata
	// RouteMetadata is the route's filter metadata, or nil.
	RouteMetadata Metadata
	// LocalReplyBody is the body of an answer that the waypoint gave itself, or "".
	LocalReplyBody string
	// Destination is the workload that answered, as far as it is known.
	Destination *Workload

	// BytesReceived and BytesSent are the bodies', seen from downstream.
	BytesReceived, BytesSent uint64
	// RequestMessages and ResponseMessages are those of a gRPC exchange.
	RequestMessages, ResponseMessages Messages
	// Lasting: recorders were told of the exchange before its end.
	Lasting bool
	// Traffic counts while a TCP connection runs, or is nil: it is none.
	Traffic *Traffic
	// Times since Start; zero for what did not happen.
	RequestReceived, RequestSent, UpstreamFirstByte, UpstreamLastByte, Duration time.Duration
	// UpstreamServiceTime is what x-envoy-upstream-service-time says.
	UpstreamServiceTime time.Duration
	// Client is who asks by X-Forwarded-For, where that is believed; its port is 0.
	Client netip.AddrPort
	// Seed is this exchange's random number: all draws for it derive from it.
	Seed uint64
}

// ClientAddress is who asks: by X-Forwarded-For where that is believed, else the
// connection's peer. It is what Envoy calls the downstream remote address.
func (i *Info) ClientAddress() netip.AddrPort {
	if i.Client.IsValid() || i.Connection == nil {
		return i.Client
	}
	return i.Remote
}

// Metadata is by filter name, then by key.
type Metadata map[string]map[string]any

// Get is the value at a path of keys below a filter's name, and whether there is
// one.
func (m Metadata) Get(filter string, path ...string) (any, bool) {
	at := m[filter]
	for i, key := range path {
		v, ok := at[key]
		if !ok {
			return nil, false
		}
		if i+1 == len(path) {
			return v, true
		}
		if at, ok = v.(map[string]any); !ok {
			return nil, false
		}
	}
	return nil, false
}
