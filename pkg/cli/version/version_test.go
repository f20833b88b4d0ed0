package version

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestText(t *testing.T) {
	m := Mesh{
		Client:    Info{Version: "v2"},
		Control:   []Component{{"pilot", "default", Info{Version: "v1"}}, {"pilot", "default", Info{Version: "v1"}}},
		DataPlane: []Proxy{{"a.shop", "v1"}, {"b.shop", "v2"}, {"c.shop", "v1"}},
	}
	var out strings.Builder
	if err := m.Write(&out, "", true); err != nil {
		t.Fatal(err)
	}
	if want := "client version: v2\ncontrol plane version: v1\ndata plane version: v1 (2 proxies), v2 (1 proxies)\n"; out.String() != want {
		t.Errorf("%s\nwant %s", out.String(), want)
	}
	out.Reset()
	m.Control[1].Info.Version = "v2"
	_ = m.Write(&out, "", true)
	if !strings.Contains(out.String(), "pilot version: v1\npilot version: v2\n") {
		t.Errorf("two versions: %s", out.String())
	}
	if err := m.Write(&out, "xml", true); err == nil {
		t.Error("xml is written")
	}
}

func TestJSONHasIstioctlsNames(t *testing.T) {
	var out strings.Builder
	m := Mesh{Client: Own()}
	if err := m.Write(&out, "json", true); err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]string
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil || got["clientVersion"]["golang_version"] == "" || len(got) != 1 {
		t.Errorf("%s %v", out.String(), err)
	}
}

func TestImageTag(t *testing.T) {
	for image, want := range map[string]string{"a/b:v1": "v1", "localhost:5000/b": "unknown", "a:v1@sha256:00": "v1"} {
		pod := &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"image": image}}}}}
		if got := imageTag(pod); got != want {
			t.Errorf("%s: %s", image, got)
		}
	}
}
