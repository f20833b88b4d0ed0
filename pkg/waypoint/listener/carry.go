package listener

import (
	"errors"

	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/guard"
)

// carry serves a connection with step, until it is over, of which over is told, or
// parks: then it is carried on in another goroutine when there is something to do. over
// is called once, also after a fault; err is nil then.
func carry(g *guard.Guard, what string, step func() error, over func(err error)) {
	var parked *codec.Parked
	var err error
	defer func() {
		if parked == nil {
			over(err)
		}
	}()
	defer g.Recover(what)
	if err = step(); errors.As(err, &parked) {
		p := parked
		p.Wait(func() { carry(g, what, p.Resume, over) })
	}
}
