package format

import (
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// plainCommand is a command without an argument.
type plainCommand struct {
	value value
	kind  kind
}

// plainCommands are Envoy's stream info formatters.
var plainCommands = map[string]plainCommand{
	"PROTOCOL": str(func(i *streaminfo.Info) string {
		if i.Request == nil || i.Request.Version == 0 {
			return ""
		}
		return i.Request.Version.String()
	}),
	"UPSTREAM_PROTOCOL":              str(func(i *streaminfo.Info) string { return i.UpstreamProtocol }),
	"RESPONSE_CODE":                  num(func(i *streaminfo.Info) (int64, bool) { return int64(i.ResponseCode), true }),
	"RESPONSE_CODE_DETAILS":          str(func(i *streaminfo.Info) string { return i.Details }),
	"CONNECTION_TERMINATION_DETAILS": str(func(i *streaminfo.Info) string { return i.Termination }),
	"RESPONSE_FLAGS":                 {value: flags, kind: text},
	"RESPONSE_FLAGS_LONG":            {value: longFlags, kind: text},
	"ROUTE_NAME":                     str(func(i *streaminfo.Info) string { return i.RouteName }),
	"FILTER_CHAIN_NAME":              conn(func(c *streaminfo.Connection) string { return c.Chain }),
	"REQUESTED_SERVER_NAME":          conn(func(c *streaminfo.Connection) string { return c.ServerName }),
	"UPSTREAM_CLUSTER":               str(func(i *streaminfo.Info) string { return i.Cluster }),
	"UPSTREAM_CLUSTER_RAW":           str(func(i *streaminfo.Info) string { return i.Cluster }),
	"UPSTREAM_HOST":                  str(func(i *streaminfo.Info) string { return i.UpstreamHost }),
	"UPSTREAM_HOST_NAME_WITHOUT_PORT": str(func(i *streaminfo.Info) string {
		if at := strings.LastIndexByte(i.UpstreamHost, ':'); at >= 0 {
			return i.UpstreamHost[:at]
		}
		return i.UpstreamHost
	}),
	"UPSTREAM_HOST_NAME":             str(func(i *streaminfo.Info) string { return i.UpstreamHost }),
	"UPSTREAM_REQUEST_ATTEMPT_COUNT": num(func(i *streaminfo.Info) (int64, bool) { return int64(i.Attempts), true }),
	"UPSTREAM_PEER_URI_SAN":          str(func(i *streaminfo.Info) string { return i.UpstreamURISAN }),
	"UPSTREAM_LOCAL_URI_SAN":         str(func(i *streaminfo.Info) string { return i.UpstreamLocalURISAN }),
	"DOWNSTREAM_PEER_URI_SAN":        conn(func(c *streaminfo.Connection) string { return c.PeerURISAN }),
	"DOWNSTREAM_LOCAL_URI_SAN":       conn(func(c *streaminfo.Connection) string { return c.LocalURISAN }),
	"UPSTREAM_TRANSPORT_FAILURE_REASON": str(func(i *streaminfo.Info) string {
		return i.TransportFailure
	}),

	"BYTES_RECEIVED": num(func(i *streaminfo.Info) (int64, bool) { return int64(i.BytesReceived), true }), //nolint:gosec // a body's size
	"BYTES_SENT":     num(func(i *streaminfo.Info) (int64, bool) { return int64(i.BytesSent), true }),     //nolint:gosec // a body's size

	"DURATION":             ms(func(i *streaminfo.Info) time.Duration { return i.Duration }),
	"REQUEST_DURATION":     ms(func(i *streaminfo.Info) time.Duration { return i.RequestReceived }),
	"REQUEST_TX_DURATION":  ms(func(i *streaminfo.Info) time.Duration { return i.RequestSent }),
	"RESPONSE_DURATION":    ms(func(i *streaminfo.Info) time.Duration { return i.UpstreamFirstByte }),
	"RESPONSE_TX_DURATION": ms(func(i *streaminfo.Info) time.Duration { return txDuration(i) }),

	"UPSTREAM_LOCAL_ADDRESS":                        addr(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamLocal }),
	"UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":           host(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamLocal }),
	"UPSTREAM_LOCAL_PORT":                           port(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamLocal }),
	"UPSTREAM_REMOTE_ADDRESS":                       addr(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamRemote }),
	"UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":          host(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamRemote }),
	"UPSTREAM_REMOTE_PORT":                          port(func(i *streaminfo.Info) netip.AddrPort { return i.UpstreamRemote }),
	"DOWNSTREAM_LOCAL_ADDRESS":                      addr(local),
	"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT":         host(local),
	"DOWNSTREAM_LOCAL_PORT":                         port(local),
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS":               addr(local),
	"DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT":  host(local),
	"DOWNSTREAM_DIRECT_LOCAL_PORT":                  port(local),
	"DOWNSTREAM_REMOTE_ADDRESS":                     addr(remote),
	"DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":        host(remote),
	"DOWNSTREAM_REMOTE_PORT":                        port(remote),
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS":              addr(direct),
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": host(direct),
	"DOWNSTREAM_DIRECT_REMOTE_PORT":                 port(direct),
	"CONNECTION_ID":                                 id(func(c *streaminfo.Connection) uint64 { return c.ID }),

	"HOSTNAME":           {value: constant(hostname()), kind: text},
	"STREAM_ID":          {value: streamID, kind: text},
	"UNIQUE_ID":          {value: streamID, kind: text},
	"GRPC_STATUS_NUMBER": {value: grpcNumber, kind: number},
	"LOCAL_REPLY_BODY": {kind: text, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		return append(dst, i.LocalReplyBody...), true
	}},
	"ACCESS_LOG_TYPE": {value: constant("DownstreamEnd"), kind: text},
}

func local(i *streaminfo.Info) netip.AddrPort  { return connection(i).Local }
func remote(i *streaminfo.Info) netip.AddrPort { return i.ClientAddress() }
func direct(i *streaminfo.Info) netip.AddrPort { return connection(i).DirectRemote }

var noConnection = new(streaminfo.Connection)

// connection is the exchange's, or an empty one.
func connection(i *streaminfo.Info) *streaminfo.Connection {
	if i.Connection == nil {
		return noConnection
	}
	return i.Connection
}

func str(get func(*streaminfo.Info) string) plainCommand {
	return plainCommand{kind: text, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		s := get(i)
		return append(dst, s...), s != ""
	}}
}

func conn(get func(*streaminfo.Connection) string) plainCommand {
	return str(func(i *streaminfo.Info) string { return get(connection(i)) })
}

func num(get func(*streaminfo.Info) (int64, bool)) plainCommand {
	return plainCommand{kind: number, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		n, ok := get(i)
		if !ok {
			return dst, false
		}
		return strconv.AppendInt(dst, n, 10), true
	}}
}

func id(get func(*streaminfo.Connection) uint64) plainCommand {
	return plainCommand{kind: number, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		return strconv.AppendUint(dst, get(connection(i)), 10), true
	}}
}

// ms is a duration in whole milliseconds; zero is one that did not happen.
func ms(get func(*streaminfo.Info) time.Duration) plainCommand {
	return num(func(i *streaminfo.Info) (int64, bool) {
		d := get(i)
		return d.Milliseconds(), d > 0
	})
}

func txDuration(i *streaminfo.Info) time.Duration {
	if i.UpstreamFirstByte == 0 || i.Duration == 0 {
		return 0
	}
	// Even a response sent at once has a duration, if it is 0 ms.
	return max(i.Duration-i.UpstreamFirstByte, 1)
}

func addr(get func(*streaminfo.Info) netip.AddrPort) plainCommand {
	return plainCommand{kind: text, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		a := get(i)
		if !a.IsValid() {
			return dst, false
		}
		return a.AppendTo(dst), true
	}}
}

func host(get func(*streaminfo.Info) netip.AddrPort) plainCommand {
	return plainCommand{kind: text, value: func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		a := get(i)
		if !a.IsValid() {
			return dst, false
		}
		return a.Addr().AppendTo(dst), true
	}}
}

func port(get func(*streaminfo.Info) netip.AddrPort) plainCommand {
	return num(func(i *streaminfo.Info) (int64, bool) {
		a := get(i)
		return int64(a.Port()), a.IsValid()
	})
}

// flags are "-" for none: that is a value to Envoy, not an absence.
func flags(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	if i.Flags == 0 {
		return append(dst, '-'), true
	}
	return i.Flags.Append(dst), true
}

func longFlags(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	if i.Flags == 0 {
		return append(dst, '-'), true
	}
	return i.Flags.AppendLong(dst), true
}

func constant(s string) value {
	return func(dst []byte, _ *streaminfo.Info) ([]byte, bool) { return append(dst, s...), s != "" }
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return ""
	}
	return name
}

// streamID is the x-request-id, or else made from the exchange's seed.
func streamID(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	if i.Request != nil {
		if v := i.Request.Fields.Get("x-request-id"); v != "" {
			return append(dst, v...), true
		}
	}
	var b [16]byte
	for n := range 8 {
		b[n] = byte(i.Seed >> (8 * n))
		b[8+n] = byte((i.Seed * 0x9e3779b97f4a7c15) >> (8 * n))
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	hex.Encode(out[9:13], b[4:6])
	hex.Encode(out[14:18], b[6:8])
	hex.Encode(out[19:23], b[8:10])
	hex.Encode(out[24:36], b[10:16])
	out[8], out[13], out[18], out[23] = '-', '-', '-', '-'
	return append(dst, out[:]...), true
}
