package codec

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
)

// What went wrong on a connection, for the router to tell apart. Errors of the
// codecs wrap one of them.
var (
	// ErrReset: the peer reset the stream, or the connection ended.
	ErrReset = errors.New("reset by the peer")
	// ErrStreamReset: the peer reset the stream alone (RST_STREAM).
	ErrStreamReset = errors.New("stream reset by the peer")
	// ErrRefused: the peer has certainly not worked on the request: a refused
	// stream, or a connection that was used before and ended with nothing read from it
	// (RFC 9110 section 9.2.2, RFC 9113 section 8.7).
	ErrRefused = errors.New("not worked on by the peer")
	// ErrProtocol: the peer broke the protocol.
	ErrProtocol = errors.New("protocol error")
	// ErrTooLarge: a head over the limits.
	ErrTooLarge = errors.New("fields too large")
)

// ErrSlowHead is a head that did not come in time. It wraps ErrProtocol when it is
// returned.
var ErrSlowHead error = &h1.Error{Status: 408, Reason: "the request's head did not come in time"}
