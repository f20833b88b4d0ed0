package router

import (
	"errors"
	"strings"
	"syscall"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/filter"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// reason is why an attempt ended without a response, in Envoy's words.
type reason uint8

const (
	reasonNone reason = iota
	connectFailure
	connectTimeout
	overflow
	remoteReset
	refusedStream
	connectionTermination
	protocolError
	tryTimeout
	tryIdle
	clientGone
)

var reasonNames = [...]string{
	connectFailure: "remote connection failure", connectTimeout: "connection timeout", overflow: "overflow", remoteReset: "remote reset",
	refusedStream: "remote refused stream reset", connectionTermination: "connection termination", protocolError: "protocol error",
	tryTimeout: "local reset", tryIdle: "local reset",
}

// String is the reset reason as Envoy prints it.
func (r reason) String() string { return reasonNames[r] }

// details is the reason as it stands in response code details.
func (r reason) details() string {
	switch r {
	case connectFailure:
		return "remote_connection_failure"
	case connectTimeout:
		return "connection_timeout"
	case overflow:
		return "overflow"
	case refusedStream:
		return "remote_refused_stream_reset"
	case connectionTermination:
		return "connection_termination"
	case protocolError:
		return "protocol_error"
	case tryTimeout, tryIdle:
		return "local_reset"
	}
	return "remote_reset"
}

// What is said of timeouts in response code details.
const (
	// IdleTimeoutDetails, MaxDurationDetails and RequestTimeoutDetails are of the
	// connection manager's own, which counts them.
	IdleTimeoutDetails    = "stream_idle_timeout"
	MaxDurationDetails    = "max_duration_timeout"
	RequestTimeoutDetails = "request_overall_timeout"

	tryIdleDetails = "upstream_per_try_idle_timeout"
)

// failure is an attempt that ended without a response.
type failure struct {
	reason reason
	// transport says more of a connection that failed, or "".
	transport string
	err       error
}

// classify says what an error of the upstream means.
func classify(err error) failure {
	var connect *cluster.ConnectError
	switch {
	case errors.Is(err, cluster.ErrOverflow):
		return failure{reason: overflow, err: err}
	case errors.As(err, &connect):
		f := failure{reason: connectFailure, transport: transport(connect.Err), err: err}
		if connect.Timeout {
			f.reason = connectTimeout
		}
		return f
	case errors.Is(err, codec.ErrRefused):
		return failure{reason: refusedStream, err: err}
	case errors.Is(err, codec.ErrProtocol), errors.Is(err, codec.ErrTooLarge):
		return failure{reason: protocolError, err: err}
	case errors.Is(err, cluster.ErrTimeout):
		return failure{reason: tryTimeout, err: err}
	case errors.Is(err, cluster.ErrGone):
		return failure{reason: clientGone, err: err}
	case errors.Is(err, codec.ErrStreamReset):
		return failure{reason: remoteReset, err: err}
	}
	return failure{reason: connectionTermination, err: err}
}

// transport is why a connection could not be had, in Envoy's words where it has some:
// clients are shown it, and addresses are not for them.
func transport(err error) string {
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		text := errno.Error()
		return "delayed connect error: " + strings.ToUpper(text[:1]) + text[1:]
	}
	return err.Error()
}

// flag is the response flag of a failure before the response began.
func (f failure) flag() streaminfo.Flags {
	switch f.reason {
	case connectFailure, connectTimeout:
		return streaminfo.UpstreamConnectionFailure
	case overflow:
		return streaminfo.UpstreamOverflow
	case remoteReset, refusedStream:
		return streaminfo.UpstreamRemoteReset
	case protocolError:
		return streaminfo.UpstreamProtocolError
	case tryTimeout, tryIdle:
		return streaminfo.UpstreamRequestTimeout
	}
	return streaminfo.UpstreamConnectionTermination
}

// reply is what the client is told of a failure before the response began.
func (f failure) reply(attempts int) *filter.Reply {
	if f.reason == tryTimeout || f.reason == tryIdle {
		details := "upstream_per_try_timeout"
		if f.reason == tryIdle {
			details = tryIdleDetails
		}
		return &filter.Reply{Status: 504, Body: "upstream request timeout", Flags: f.flag(), Details: details}
	}
	r := &filter.Reply{Status: 503, Flags: f.flag()}
	if f.reason == protocolError {
		r.Status = 502
	}
	retried := ""
	if attempts > 1 {
		retried = "retried and the latest "
	}
	r.Body = "upstream connect error or disconnect/reset before headers. " + retried + "reset reason: " + f.reason.String()
	r.Details = "upstream_reset_before_response_started{" + f.reason.details()
	if f.transport != "" {
		if !errors.As(f.err, new(syscall.Errno)) { // Envoy tells clients of TLS alone
			r.Body += ", transport failure reason: " + f.transport
		}
		r.Details += "|" + strings.ReplaceAll(f.transport, " ", "_")
	}
	r.Details += "}"
	if f.reason == overflow {
		r.Fields.Add("x-envoy-overloaded", "true")
	}
	return r
}
