package codec

import (
	"errors"
	"fmt"
	"os"

	"github.com/fairlead-mesh/fairlead/pkg/h1"
)

// failure sorts an error of an HTTP/1 connection; a deadline stays what it is.
func failure(err error) error {
	var broken *h1.Error
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrReset), errors.Is(err, ErrRefused), errors.Is(err, ErrProtocol):
		return err
	case errors.As(err, &broken) && broken.Status == 431:
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.As(err, &broken):
		return fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	return fmt.Errorf("%w: %w", ErrReset, err)
}
