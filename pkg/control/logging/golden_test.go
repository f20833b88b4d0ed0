package logging

import (
	"fmt"
	"testing"

	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/golden"
	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
)

// TestGolden compares testdata/x.in.yaml, translated, with testdata/x.out.yaml.
func TestGolden(t *testing.T) {
	golden.Run(t, func(t *testing.T, _ string, in []byte) []byte { return render(t, string(in)) })
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
	return golden.YAML(t, view)
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
		out = append(out, golden.Tree(t, log))
	}
	return out
}
