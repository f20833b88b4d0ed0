package h2

import (
	"io"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/h2spec"
)

// A server of this package alone; test/hostile asks the shipped waypoint the same.
func TestH2spec(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program of another module")
	}
	h2spec.Run(t, serve(t, Config{MaxFrame: minFrameSize}, func(s *Stream) {
		for {
			if _, err := s.Next(); err == io.EOF {
				break
			} else if err != nil {
				return
			}
		}
		_ = s.Respond([]Field{{Name: ":status", Value: "200"}}, More)
		_ = s.Send(data(100), End)
	}))
}
