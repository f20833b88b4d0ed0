package h2

import (
	"errors"
	"fmt"
)

// Code is an error code of RFC 9113 section 7.
type Code uint32

// The codes.
const (
	CodeNo                 Code = 0x0
	CodeProtocol           Code = 0x1
	CodeInternal           Code = 0x2
	CodeFlowControl        Code = 0x3
	CodeSettingsTimeout    Code = 0x4
	CodeStreamClosed       Code = 0x5
	CodeFrameSize          Code = 0x6
	CodeRefusedStream      Code = 0x7
	CodeCancel             Code = 0x8
	CodeCompression        Code = 0x9
	CodeConnect            Code = 0xa
	CodeEnhanceYourCalm    Code = 0xb
	CodeInadequateSecurity Code = 0xc
)

var codeNames = []string{
	"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED", "FRAME_SIZE_ERROR",
	"REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY",
}

func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// StreamError ends one stream.
type StreamError struct {
	Code Code
	// Remote is set where the peer reset the stream.
	Remote bool
}

func (e *StreamError) Error() string {
	if e.Remote {
		return "stream reset by peer: " + e.Code.String()
	}
	return "stream reset: " + e.Code.String()
}

// ConnError ends a connection.
type ConnError struct {
	Code   Code
	Reason string
	Remote bool // the peer said so
}

func (e *ConnError) Error() string {
	who := "connection error: "
	if e.Remote {
		who = "connection closed by peer: "
	}
	if e.Reason == "" {
		return who + e.Code.String()
	}
	return who + e.Code.String() + ": " + e.Reason
}

func connError(code Code, format string, args ...any) error {
	return &ConnError{Code: code, Reason: fmt.Sprintf(format, args...)}
}

// ErrNoStream: the connection takes no new streams; another one is needed.
var ErrNoStream = errors.New("no stream to be had on this connection")

// Retryable reports whether an error says that the peer has certainly not worked
// on the request (RFC 9113 section 8.7).
func Retryable(err error) bool {
	var se *StreamError
	return errors.Is(err, ErrNoStream) || errors.As(err, &se) && se.Remote && se.Code == CodeRefusedStream
}
