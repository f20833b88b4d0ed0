package format

import (
	"fmt"
	"strconv"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// grpcNames are gRPC's status codes as Envoy writes them.
var grpcNames = [...]string{
	"OK", "Canceled", "Unknown", "InvalidArgument", "DeadlineExceeded", "NotFound", "AlreadyExists", "PermissionDenied",
	"ResourceExhausted", "FailedPrecondition", "Aborted", "OutOfRange", "Unimplemented", "Internal", "Unavailable",
	"DataLoss", "Unauthenticated",
}

var grpcSnakeNames = [...]string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

func grpcStatus(c command) (value, kind, error) {
	names := grpcNames[:]
	switch c.arg {
	case "", "CAMEL_STRING":
	case "SNAKE_STRING":
		names = grpcSnakeNames[:]
	case "NUMBER":
		return grpcNumber, number, nil
	default:
		return nil, text, fmt.Errorf("the form %q is not CAMEL_STRING, SNAKE_STRING or NUMBER", c.arg)
	}
	return func(dst []byte, i *streaminfo.Info) ([]byte, bool) {
		n, ok := grpcCode(i)
		switch {
		case !ok:
			return dst, false
		case n < len(names):
			return append(dst, names[n]...), true
		}
		return strconv.AppendInt(dst, int64(n), 10), true
	}, text, nil
}

func grpcNumber(dst []byte, i *streaminfo.Info) ([]byte, bool) {
	n, ok := grpcCode(i)
	if !ok {
		return dst, false
	}
	return strconv.AppendInt(dst, int64(n), 10), true
}

// grpcCode is the status of a gRPC exchange: of its trailers, else of its response's
// head, else from the HTTP status.
func grpcCode(i *streaminfo.Info) (int, bool) {
	if i.Request == nil || !i.Request.GRPC() {
		return 0, false
	}
	v, ok := i.Trailers.Lookup("grpc-status")
	if !ok && i.Response != nil {
		v, ok = i.Response.Fields.Lookup("grpc-status")
	}
	if ok {
		n, err := strconv.ParseUint(v, 10, 31)
		return int(n), err == nil //nolint:gosec // 31 bits
	}
	if i.ResponseCode == 0 {
		return 0, false
	}
	return message.GRPCFromHTTP(i.ResponseCode), true
}
