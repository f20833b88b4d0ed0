package proxystatus

import (
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all, err := Read([]byte(`[
		{"node": "n1", "pod": "waypoint-5d", "account": "shop/waypoint", "cluster": "west", "version": "1.31.0", "build": "0.9", "waypoint": "shop/waypoint", "from": "10.0.0.1:1",
		 "types": {"clusters": {"behind": 0, "acked": "1", "ackedAt": "2026-01-02T03:03:05Z"},
		           "listeners": {"behind": 2, "waiting": ["3"], "since": "2026-01-02T03:04:00Z", "acked": "2"},
		           "routes": {"behind": 0, "acked": "4", "refused": ["inbound"], "nack": "no such filter"}}},
		{"node": "n2", "pod": "ztunnel-x", "account": "istio-system/ztunnel", "types": {"addresses": {"behind": 0}}},
		{"node": "n2", "pod": "envoy-x", "account": "shop/envoy", "version": "1.30.2", "types": {}}]`), "istiod-1")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := Write(&out, all, "", now); err != nil {
		t.Fatal(err)
	}
	var got []string
	for l := range strings.SplitSeq(strings.TrimSpace(out.String()), "\n") {
		got = append(got, strings.Join(strings.Fields(l), " "))
	}
	want := []string{
		"NAME CLUSTER CDS LDS EDS RDS WADS WDS ISTIOD VERSION NODE",
		"envoy-x.shop Kubernetes IGNORED IGNORED IGNORED IGNORED IGNORED IGNORED istiod-1 1.30.2 n2",
		"waypoint-5d.shop west SYNCED (60s) STALE (5s) IGNORED ERROR IGNORED IGNORED istiod-1 0.9 n1",
		"ztunnel-x.istio-system Kubernetes IGNORED IGNORED IGNORED IGNORED NOT SENT IGNORED istiod-1 unknown n2",
		"waypoint-5d.shop refuses routes inbound: no such filter",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	if _, err := Read([]byte("404 page not found"), ""); err == nil {
		t.Error("an error page is taken")
	}
}
