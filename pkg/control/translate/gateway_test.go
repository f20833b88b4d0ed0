package translate

import (
	"testing"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// TestListenersOfWaypoints holds that a listener which a waypoint does not serve says so.
func TestListenersOfWaypoints(t *testing.T) {
	for protocol, want := range map[string]map[string]string{
		"HBONE": {"Accepted": "True Accepted", "Programmed": "True Programmed", "Conflicted": "False NoConflicts", "ResolvedRefs": "True ResolvedRefs"},
		"HTTP":  {"Accepted": "False UnsupportedProtocol", "Programmed": "False Invalid", "Conflicted": "False NoConflicts", "ResolvedRefs": "True ResolvedRefs"},
	} {
		s := listenerStatus(gatewayv1.Listener{Name: "l", Protocol: gatewayv1.ProtocolType(protocol), Port: 15008})
		if s.AttachedRoutes != 0 || s.Name != "l" || len(s.Conditions) != len(want) {
			t.Errorf("%s: %+v", protocol, s)
		}
		for _, c := range s.Conditions {
			if got := c.Status + " " + c.Reason; got != want[c.Type] {
				t.Errorf("%s: %s is %s, want %s", protocol, c.Type, got, want[c.Type])
			}
		}
	}
}
