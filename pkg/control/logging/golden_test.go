package logging

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

var update = flag.Bool("update", false, "write testdata/*.out.yaml anew; read the difference before it is committed")

// TestGolden compares testdata/x.in.yaml, translated, with testdata/x.out.yaml.
func TestGolden(t *testing.T) {
	if *update && os.Getenv("CI") != "" {
		t.Fatal("-update is for people: in CI the outputs are compared only")
	}
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatalf("no inputs in testdata: %v", err)
	}
	for _, in := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(in), ".in.yaml"), func(t *testing.T) {
			text, err := os.ReadFile(in)
			if err != nil {
				t.Fatal(err)
			}
			got := render(t, string(text))
			file := strings.TrimSuffix(in, ".in.yaml") + ".out.yaml"
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got), `go test -update` writes it anew:\n%s", file, diff)
			}
		})
	}
}

func world(t *testing.T, texts ...string) (*model.Model, *Logs) {
	t.Helper()
	var files []source.File
	for i, text := range texts {
		files = append(files, source.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	out, err := translate.Translate(source.Parse(files, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return out.Model, New(out.Model)
}

func render(t *testing.T, text string) []byte {
	t.Helper()
	m, l := world(t, text)
	view := map[string]any{}
	for _, w := range m.Waypoints {
		name := "waypoint " + w.Key.Namespace + "/" + w.Key.Name
		view[name] = accessLogs(t, l, w, nil, false)
		for _, s := range w.Services {
			view[name+" "+s.Hostname] = accessLogs(t, l, w, s, false)
		}
	}
	said := map[string]any{}
	for _, s := range l.Status() {
		for _, c := range s.Conditions {
			said[s.Object.Kind+" "+s.Object.Namespace+"/"+s.Object.Name] = c.Type + " " + c.Status + " " + c.Reason + ": " + c.Message
		}
	}
	view["status"] = said
	out, err := yaml.Marshal(view)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func accessLogs(t *testing.T, l *Logs, w *model.Waypoint, s *model.Service, cel bool) (out []any) {
	t.Helper()
	logs, err := l.AccessLogs(w, s, cel)
	if err != nil {
		t.Fatal(err)
	}
	for _, log := range logs {
		file := &filev3.FileAccessLog{}
		if err := log.GetTypedConfig().UnmarshalTo(file); err != nil {
			t.Fatal(err)
		}
		if err := log.ValidateAll(); err != nil {
			t.Errorf("logger: %v", err)
		}
		if err := file.ValidateAll(); err != nil {
			t.Errorf("file: %v", err)
		}
		out = append(out, asJSON(t, log))
	}
	return out
}

func asJSON(t *testing.T, m proto.Message) any {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
