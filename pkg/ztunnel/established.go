package ztunnel

import "github.com/fairlead-mesh/fairlead/pkg/telemetry"

// established is a connection that was decided on: relay carries it to its end, or
// err is why it is not to be.
type established struct {
	record *telemetry.Record // or nil: nothing to tell
	relay  func() error
	err    error
}

// apart runs setup on a stack of its own. Deciding and dialling take a deep one,
// which would be kept as long as the connection.
func apart(setup func() established) established {
	done := make(chan established, 1)
	go func() { done <- setup() }()
	return <-done
}

// finish carries the connection, closes its record, and says how it ended.
func (e established) finish() error {
	if e.err == nil {
		e.err = e.relay()
	}
	if e.record != nil {
		e.record.Close(telemetry.Result{Err: e.err, Flag: flagOf(e.err)})
	}
	return e.err
}
