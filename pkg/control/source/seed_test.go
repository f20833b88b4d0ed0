package source

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSeedTelemetry reads the tutorial's own file: its first object is taken, its
// second is refused at the three lines that are wrong.
func TestSeedTelemetry(t *testing.T) {
	const name = "../../../../shared/seed/manifests/14-telemetry.yaml"
	text, err := os.ReadFile(name)
	if err != nil {
		t.Skipf("the seed is not here: %v", err)
	}
	o := Parse([]File{{"14-telemetry.yaml", text}}, nil)
	var got []Position
	for _, p := range o.Problems {
		if p.Severity == Error {
			got = append(got, p.Position)
		}
	}
	if diff := cmp.Diff([]Position{{"14-telemetry.yaml", 28}, {"14-telemetry.yaml", 31}, {"14-telemetry.yaml", 33}}, got); diff != "" {
		t.Error(diff, lines(o))
	}
	if len(o.Telemetries) != 1 || o.Telemetries[0].Name != "default-tracing" {
		t.Errorf("taken: %v", o.Telemetries)
	}
}
