package ztunnel

import (
	"context"
	"errors"
	"fmt"

	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Why a connection was refused or closed, in the words of its record.
var (
	errSelfCall      = errors.New("attempted recursive call to ourselves")
	errNotOurs       = errors.New("the destination is not an address of the pod")
	errPolicyChange  = errors.New("connection closed due to policy change")
	errPeerChange    = errors.New("connection closed: the destination is another workload now")
	errDenied        = errors.New("connection denied by policy")
	errNoState       = errors.New("no configuration from a control plane yet")
	errUnknownPod    = errors.New("the pod is not known to the control plane yet")
	errWaypoint      = errors.New("the destination's waypoint cannot be found")
	errNetwork       = errors.New("the destination is on another network, which is not supported yet")
	errIPMismatch    = errors.New("ip mismatch")
	errCertificate   = errors.New("no certificate for the pod")
	errTooMany       = errors.New("too many connections of this pod")
	errStopped       = errors.New("connection closed: the agent stops, or the pod is gone")
	errTunnelTimeout = errors.New("connection timed out, maybe a NetworkPolicy is blocking HBONE port 15008")
)

// deniedError carries the decision's words.
type deniedError struct{ authz.Decision }

func (e *deniedError) Error() string {
	if e.Policy != "" {
		return errDenied.Error() + " " + e.Policy
	}
	return errDenied.Error() + ": " + e.Reason
}

func (e *deniedError) Unwrap() error { return errDenied }

// portError: a host name was asked for that is no port of the pod.
func portError(host string, port uint16) error {
	return fmt.Errorf("requested service %s:%d found, but cannot resolve port", host, port)
}

// flagOf is the response flag of a failure.
func flagOf(err error) telemetry.Flag {
	var refused *hbone.StatusError
	switch {
	case err == nil:
		return telemetry.FlagNone
	case errors.Is(err, errDenied), errors.Is(err, errPolicyChange), errors.As(err, &refused) && refused.Status == 401:
		return telemetry.FlagDeny
	case errors.Is(err, errCertificate):
		return telemetry.FlagIdentity
	case errors.Is(err, hbone.ErrTLS):
		return telemetry.FlagTLS
	case errors.Is(err, hbone.ErrHTTP2):
		return telemetry.FlagH2
	case errors.Is(err, errTunnelTimeout), errors.Is(err, hbone.ErrDial) && errors.Is(err, context.DeadlineExceeded):
		return telemetry.FlagNetworkPolicy
	}
	return telemetry.FlagConnect
}
