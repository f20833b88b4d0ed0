package codec

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
	"github.com/fairlead-mesh/fairlead/pkg/h2"
)

// failure sorts an error of an HTTP/1 connection; a deadline stays what it is.
func failure(err error) error {
	if err == nil {
		return nil
	}
	return sorted(err)
}

func sorted(err error) error {
	var broken *h1.Error
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrReset), errors.Is(err, ErrRefused), errors.Is(err, ErrProtocol):
		return err
	case errors.As(err, &broken) && broken.Status == 431:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.As(err, &broken):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return fmt.Errorf("%w: %w", ErrReset, err)
}

// errTargetOfHTTP2 is a request that could not be passed on.
var errTargetOfHTTP2 = fmt.Errorf("%w: HTTP/2: the :path or :authority has a character that is not allowed", ErrProtocol)

// http2Failure sorts an error of an HTTP/2 connection; a deadline and the end of a
// body stay what they are.
func http2Failure(err error) error {
	if err == nil {
		return nil
	}
	return http2Sorted(err)
}

func http2Sorted(err error) error {
	var stream *h2.StreamError
	var conn *h2.ConnError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case h2.Retryable(err):
		return fmt.Errorf("%w: %w", ErrRefused, err)
	case errors.As(err, &stream):
		switch {
		case stream.Remote:
			return fmt.Errorf("%w: %w: %w", ErrReset, ErrStreamReset, err)
		case stream.Code == h2.CodeProtocol:
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	case errors.As(err, &conn):
		switch {
		case conn.Code == h2.CodeNo && !conn.Remote:
			return fmt.Errorf("%w: %w", ErrReset, err)
		case !conn.Remote:
			return fmt.Errorf("%w: %w", ErrProtocol, err)
		}
	}
	return fmt.Errorf("%w: %w", ErrReset, err)
}
