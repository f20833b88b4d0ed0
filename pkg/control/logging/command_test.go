package logging

import (
	"strings"
	"testing"
)

func TestFormatsAreChecked(t *testing.T) {
	for format, want := range map[string]string{
		textFormat: "", "": "", "100%% %REQ(X-A?:B):20% %START_TIME(%Y/%m)% %GRPC_STATUS(NUMBER)%": "",
		"%NOPE%": "there is no command %NOPE%", "%REQ%": "%REQ% needs an argument", "100%": "is no command", "%start_time%": "is no command", "%REQ(x": "is no command",
	} {
		err := checkText(format)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.40q: %v, want %q", format, err, want)
		}
	}
	for _, v := range jsonFormat {
		if err := checkText(v.(string)); err != nil {
			t.Error(err)
		}
	}
}

// TestFormatThatCannotBeRead holds that a slip in the mesh's settings costs the
// format, not the traffic, and is said.
func TestFormatThatCannotBeRead(t *testing.T) {
	for _, settings := range []string{
		"accessLogFormat: '%NOPE%'", "{accessLogEncoding: JSON, accessLogFormat: 'no object'}",
		`{accessLogEncoding: JSON, accessLogFormat: '{"a": {"b": ["%NOPE%"]}}'}`,
	} {
		_, l := world(t, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    "+settings+"\n")
		f, err := l.format(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.String(); strings.Contains(got, "NOPE") || !strings.Contains(got, "REQUESTED_SERVER_NAME") {
			t.Errorf("%s: the format is %s", settings, got)
		}
		if all := l.Status(); len(all) != 1 || all[0].Object.Kind != "ConfigMap" || !strings.Contains(all[0].Conditions[0].Message, "accessLogFormat: ") {
			t.Errorf("%s: status %v", settings, all)
		}
	}
}
