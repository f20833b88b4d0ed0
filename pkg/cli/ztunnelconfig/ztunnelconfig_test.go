package ztunnelconfig

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/cli/document"
)

// example is what our agent writes, as its own test holds it.
const example = "../../admin/testdata/config_dump.json"

// TestAsIstioctl compares our tables with those of the real istioctl, of our agent's dump.
func TestAsIstioctl(t *testing.T) {
	istioctl := os.Getenv("ISTIOCTL")
	if istioctl == "" {
		found, _ := filepath.Glob("../../../.cache/parts/istioctl")
		if len(found) == 0 {
			t.Skip("istioctl is not built: ISTIOCTL=FILE, or test/kube/build.sh istio")
		}
		istioctl = found[0]
	}
	raw, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Read(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		ours func(*strings.Builder) error
	}{
		{[]string{"workload"}, func(b *strings.Builder) error { return d.ShowWorkloads(b, WorkloadFilter{}, document.Short) }},
		{[]string{"service"}, func(b *strings.Builder) error { return d.ShowServices(b, "", document.Short) }},
		{[]string{"policy"}, func(b *strings.Builder) error { return d.ShowPolicies(b, "", document.Short) }},
		{[]string{"certificate"}, func(b *strings.Builder) error { return d.ShowCertificates(b, "", document.Short, time.Now()) }},
		{[]string{"connections"}, func(b *strings.Builder) error { return d.ShowConnections(b, ConnectionFilter{}, document.Short) }},
		{[]string{"connections", "--raw", "--direction", "inbound"}, func(b *strings.Builder) error {
			return d.ShowConnections(b, ConnectionFilter{Raw: true, Direction: "inbound"}, document.Short)
		}},
	} {
		theirs, err := exec.Command(istioctl, append([]string{"ztunnel-config"}, append(c.args, "--file", example)...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("istioctl %v: %v\n%s", c.args, err, theirs)
		}
		var ours strings.Builder
		if err := c.ours(&ours); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(lines(ours.String()), lines(string(theirs))) {
			t.Errorf("%v\nours:\n%s\nistioctl's:\n%s", c.args, ours.String(), theirs)
		}
	}
}

func lines(text string) []string {
	var out []string
	for l := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		out = append(out, strings.Join(strings.Fields(l), " "))
	}
	slices.Sort(out)
	return out
}

func TestFilters(t *testing.T) {
	d, err := Read([]byte(`{"workloads": [
		{"name": "a", "namespace": "x", "node": "n1", "workloadIps": ["10.0.0.1"], "uid": "1", "status": "Healthy", "protocol": "HBONE", "waypoint": {"destination": "x/wp.x.svc"}},
		{"name": "b", "namespace": "y", "node": "n2", "workloadIps": ["10.0.0.2"], "uid": "2", "status": "Unhealthy", "protocol": "TCP"}],
		"services": [{"name": "wp", "namespace": "x", "hostname": "wp.x.svc", "vips": ["/10.1.0.1"], "endpoints": {"1": {"workloadUid": "1"}, "2": {"workloadUid": "2"}}}],
		"workloadState": {"1": {"info": {"name": "a", "namespace": "x"}, "connections": {"inbound": [{"src": "10.0.0.2:5", "actualDst": "10.0.0.1:80", "originalDst": "10.1.0.1:80", "protocol": "HBONE"}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		show func(*strings.Builder) error
		want []string
	}{
		{func(b *strings.Builder) error { return d.ShowWorkloads(b, WorkloadFilter{Node: "n1"}, document.Short) }, []string{"x a 10.0.0.1 n1 wp HBONE"}},
		{func(b *strings.Builder) error {
			return d.ShowWorkloads(b, WorkloadFilter{Address: "10.0.0.2"}, document.Short)
		}, []string{"y b 10.0.0.2 n2 None TCP"}},
		{func(b *strings.Builder) error { return d.ShowServices(b, "x", document.Short) }, []string{"x wp 10.1.0.1 None 1/2"}},
		{func(b *strings.Builder) error {
			return d.ShowConnections(b, ConnectionFilter{Workload: "a"}, document.Short)
		}, []string{"a.x Inbound a.x:80 b.y:5 10.1.0.1:80 HBONE"}},
		{func(b *strings.Builder) error {
			return d.ShowConnections(b, ConnectionFilter{Direction: "outbound"}, document.Short)
		}, nil},
	} {
		var b strings.Builder
		if err := c.show(&b); err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(strings.TrimSpace(b.String()), "\n")[1:]
		for i := range rows {
			rows[i] = strings.Join(strings.Fields(rows[i]), " ")
		}
		if !slices.Equal(rows, c.want) && len(rows)+len(c.want) > 0 {
			t.Errorf("%q, want %q", rows, c.want)
		}
	}
	var b strings.Builder
	if err := d.ShowWorkloads(&b, WorkloadFilter{Name: "nobody"}, document.JSON); err != nil || strings.TrimSpace(b.String()) != "[]" {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestOtherFilesAreRefused(t *testing.T) {
	for _, text := range []string{"", "[]", `{"configs": []}`} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), "not a node agent's dump") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
