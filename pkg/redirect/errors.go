package redirect

import "errors"

var (
	// ErrNoOrigin: a connection came to the capture's listener that was not
	// captured; nobody knows where it meant to go.
	ErrNoOrigin = errors.New("the connection was not captured")
	// ErrPodGone: the pod is not enrolled any more.
	ErrPodGone = errors.New("the pod is not enrolled any more")
)
