package cluster

import (
	"errors"
	"fmt"
)

// What keeps a request from going out, for the router to tell apart.
var (
	// ErrNoHost: there is no host that may be chosen (503, flag UH).
	ErrNoHost = errors.New("no healthy upstream")
	// ErrOverflow: a circuit breaker is open (503, x-envoy-overloaded, flag UO).
	ErrOverflow = errors.New("upstream overflow: a circuit breaker is open")
	// ErrTimeout: the deadline passed before a connection was had. Nothing was sent.
	ErrTimeout = errors.New("no connection before the deadline")
	// ErrGone: the client went away while its request waited. Nothing was sent.
	ErrGone = errors.New("the client is gone")
	// ErrRemoved: the host or the cluster was taken away while the request waited.
	// Nothing was sent.
	ErrRemoved = errors.New("the host was removed")
)

// ConnectError is a connection that could not be had (503, flag UF). The request was
// certainly not worked on.
type ConnectError struct {
	// Host is the host's address as Envoy writes it.
	Host string
	// Status is what the tunnel's other end answered to the CONNECT, or 0.
	Status int
	// Timeout is true where connect_timeout passed.
	Timeout bool
	Err     error
}

func (e *ConnectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.Host, e.Err) }

// Unwrap is the cause.
func (e *ConnectError) Unwrap() error { return e.Err }

// fieldError is a field of a cluster or an assignment that cannot be used.
type fieldError struct {
	name, field string
	err         error
}

func (e *fieldError) Error() string { return fmt.Sprintf("cluster %s: %s: %v", e.name, e.field, e.err) }

func (e *fieldError) Unwrap() error { return e.err }
