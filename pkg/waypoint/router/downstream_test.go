package router

import (
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/route"
)

// How long an exchange may last is asked for by its client, as far as its route lets it,
// or said by the route, or by the connection manager.
func TestBound(t *testing.T) {
	second := func(n float64) *time.Duration {
		d := time.Duration(n * float64(time.Second))
		return &d
	}
	for name, c := range map[string]struct {
		forward *route.Forward
		asked   string
		want    *time.Duration // nil: unbounded
		told    string         // the server
	}{
		"the manager's":         {&route.Forward{}, "1S", second(9), "1S"},
		"no route":              {nil, "1S", second(9), "1S"},
		"the manager's, by own": {&route.Forward{ByDuration: true}, "1S", second(9), "9000m"},
		"the route's":           {&route.Forward{ByDuration: true, MaxDuration: second(4)}, "1S", second(4), "4000m"},
		"the route's none":      {&route.Forward{ByDuration: true, MaxDuration: second(0)}, "1S", nil, "1S"},
		"the client's":          {&route.Forward{ByDuration: true, MaxDuration: second(4), GRPCHeaderMax: second(0)}, "1H", second(3600), "3600000m"},
		"the client's, bounded": {&route.Forward{ByDuration: true, GRPCHeaderMax: second(5)}, "1H", second(5), "5000m"},
		"the client's, less":    {&route.Forward{ByDuration: true, GRPCHeaderMax: second(0), GRPCHeaderShift: second(0.1)}, "1S", second(0.9), "900m"},
		"nothing is left":       {&route.Forward{ByDuration: true, GRPCHeaderMax: second(0), GRPCHeaderShift: second(2)}, "1S", second(0), "0m"},
		"the client asks not":   {&route.Forward{ByDuration: true, MaxDuration: second(4), GRPCHeaderMax: second(5)}, "soon", second(4), "4000m"},
		"days":                  {&route.Forward{ByDuration: true, GRPCHeaderMax: second(0)}, "99999H", second(99999 * 3600), "5999940M"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &message.Request{Method: "POST", Path: "/s/m"}
			r.Fields.Set("content-type", "application/grpc")
			r.Fields.Set("grpc-timeout", c.asked)
			call := Call{MaxDuration: 9 * time.Second}
			if c.forward != nil {
				call.Route = &route.Route{Forward: c.forward}
			}
			call.bound(r)
			if call.bounded != (c.want != nil) || c.want != nil && call.duration != *c.want || r.Fields.Get("grpc-timeout") != c.told {
				t.Errorf("bounded %v, %s, told %q; want %v, told %q", call.bounded, call.duration, r.Fields.Get("grpc-timeout"), c.want, c.told)
			}
		})
	}
}
