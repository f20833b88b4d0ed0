package ztunnel

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/relay"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
)

// carrier carries a connection that was decided on. It returns at once, and tells
// done of the end.
type carrier func(done func(error))

// settle carries the connection, or ends it with err if that is not nil; closes
// its record, if there is one; and then calls done. One that another agent goes on
// with has no end here.
func settle(record *telemetry.Record, carry carrier, err error, done func(error)) {
	end := func(err error) {
		if errors.Is(err, relay.ErrLeft) {
			record.Leave()
			done(nil)
			return
		}
		if record != nil {
			record.Close(telemetry.Result{Err: err, Flag: flagOf(err)})
		}
		done(err)
	}
	if err != nil {
		end(err)
		return
	}
	carry(end)
}
