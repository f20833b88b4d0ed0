package h2

import (
	"encoding/binary"
	"fmt"
)

// The frame types of RFC 9113 section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRSTStream    = 0x3
	frameSettings     = 0x4
	framePushPromise  = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// headerLen is the length of a frame's header.
const headerLen = 9

// minFrameSize and maxFrameSize bound SETTINGS_MAX_FRAME_SIZE (section 6.5.2).
const (
	minFrameSize  = 1 << 14
	maxFrameSize  = 1<<24 - 1
	maxWindow     = 1<<31 - 1
	defaultWindow = 65535
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

type frameHeader struct {
	length uint32
	kind   byte
	flags  byte
	stream uint32
}

func parseFrameHeader(b []byte) frameHeader {
	return frameHeader{
		length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]),
		kind:   b[3], flags: b[4], stream: binary.BigEndian.Uint32(b[5:]) &^ (1 << 31),
	}
}

func putFrameHeader(b []byte, length int, kind, flags byte, stream uint32) {
	b[0], b[1], b[2] = byte(length>>16), byte(length>>8), byte(length)
	b[3], b[4] = kind, flags
	binary.BigEndian.PutUint32(b[5:], stream)
}

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
