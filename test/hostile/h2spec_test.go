package hostile

import (
	"testing"

	"github.com/fairlead-mesh/fairlead/test/h2spec"
)

// The shipped waypoint's own port speaks HTTP/2 as the RFCs say.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program of another module")
	}
	server, _ := upstream(t)
	h2spec.Run(t, start(t, "HTTP2", server).addr)
}
