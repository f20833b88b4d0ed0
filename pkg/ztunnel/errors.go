package ztunnel

import (
	"context"
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// Why a connection was refused or closed, in the words of its record.
var (
	errSelfCall     = errors.New("attempted recursive call to ourselves")
	errPolicyChange = errors.New("connection closed due to policy change")
	errDenied       = errors.New("connection denied by policy")
	errNoState      = errors.New("no configuration from a control plane yet")
	errUnknownPod   = errors.New("the pod is not known to the control plane yet")
	errWaypoint     = errors.New("the destination's waypoint cannot be reached from this version")
	errNetwork      = errors.New("the destination is on another network, which is not supported yet")
	errIPMismatch   = errors.New("ip mismatch")
	errTooMany      = errors.New("too many connections of this pod")
	errDraining     = errors.New("the agent is stopping")
)

// flagOf is the response flag of a failure.
func flagOf(err error) telemetry.Flag {
	var refused *hbone.StatusError
	switch {
	case err == nil:
		return telemetry.FlagNone
	case errors.Is(err, errDenied), errors.Is(err, errPolicyChange), errors.As(err, &refused) && refused.Status == 401:
		return telemetry.FlagDeny
	case errors.Is(err, hbone.ErrTLS):
		return telemetry.FlagTLS
	case errors.Is(err, hbone.ErrHTTP2):
		return telemetry.FlagH2
	case errors.Is(err, hbone.ErrDial) && errors.Is(err, context.DeadlineExceeded):
		return telemetry.FlagNetworkPolicy
	}
	return telemetry.FlagConnect
}
