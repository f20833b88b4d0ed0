package streaminfo

import "testing"

// TestMessages holds that messages are counted wherever their bytes are cut.
func TestMessages(t *testing.T) {
	var stream []byte
	for _, size := range []int{0, 1, 300, 0, 70_000, 5} {
		stream = append(stream, 0, byte(size>>24), byte(size>>16), byte(size>>8), byte(size))
		stream = append(stream, make([]byte, size)...)
	}
	for _, cut := range []int{1, 2, 3, 5, 6, 7, 4096, len(stream)} {
		var m Messages
		for rest := stream; len(rest) > 0; {
			n := min(cut, len(rest))
			m.Feed(rest[:n])
			rest = rest[n:]
		}
		if m.Count() != 6 {
			t.Errorf("cut by %d: %d messages, want 6", cut, m.Count())
		}
	}
}

// TestWorkloads holds what is read of an endpoint's metadata and of a tunnel's state.
func TestWorkloads(t *testing.T) {
	if w := FromEndpoint(nil); w != nil {
		t.Errorf("of nothing: %+v", w)
	}
	if w := FromEndpoint(Metadata{"istio": {"workload": "a;b"}}); w != nil {
		t.Errorf("of another form: %+v", w)
	}
	if w := FromEndpoint(Metadata{"mesh": {"workload": "w", "namespace": "n", "service": "s", "app": "a"}}); w == nil || *w != (Workload{Name: "w", Namespace: "n", CanonicalService: "s", App: "a"}) {
		t.Errorf("of ours: %+v", w)
	}
	if w := FromState(map[string]string{"io.istio.peer_principal": "x"}); w != nil {
		t.Errorf("of a tunnel that says nothing: %+v", w)
	}
	long := string(make([]byte, 1000))
	if w := FromState(map[string]string{"mesh.source_workload": long}); w == nil || len(w.Name) != maxLabel {
		t.Error("a name of any length is taken")
	}
}
