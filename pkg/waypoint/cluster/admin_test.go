package cluster

import (
	"strings"
	"testing"
)

// The page is as an Envoy 1.40 writes it for the same cluster and requests.
func TestClustersPageIsEnvoys(t *testing.T) {
	m := newManager(t, Options{})
	c := m.set(t, `{"name":"c","type":"STATIC","alt_stat_name":"other","load_assignment":{"cluster_name":"c","endpoints":[{"locality":{"region":"r","zone":"z"},"lb_endpoints":[
		{"endpoint":{"address":{"socket_address":{"address":"10.0.0.1","port_value":80}},"hostname":"one"},"load_balancing_weight":3}]}]}}`)
	c.Hosts()[0].Report(Responded, 200)
	var out strings.Builder
	if err := m.WriteClusters(&out); err != nil {
		t.Fatal(err)
	}
	const want = `c::observability_name::other
c::default_priority::max_connections::1024
c::default_priority::max_pending_requests::1024
c::default_priority::max_requests::1024
c::default_priority::max_retries::3
c::high_priority::max_connections::1024
c::high_priority::max_pending_requests::1024
c::high_priority::max_requests::1024
c::high_priority::max_retries::3
c::added_via_api::true
c::10.0.0.1:80::cx_active::0
c::10.0.0.1:80::cx_connect_fail::0
c::10.0.0.1:80::cx_total::0
c::10.0.0.1:80::rq_active::0
c::10.0.0.1:80::rq_error::0
c::10.0.0.1:80::rq_pending_active::0
c::10.0.0.1:80::rq_success::1
c::10.0.0.1:80::rq_timeout::0
c::10.0.0.1:80::rq_total::0
c::10.0.0.1:80::hostname::one
c::10.0.0.1:80::health_flags::healthy
c::10.0.0.1:80::weight::3
c::10.0.0.1:80::region::r
c::10.0.0.1:80::zone::z
c::10.0.0.1:80::sub_zone::
c::10.0.0.1:80::canary::false
c::10.0.0.1:80::priority::0
c::10.0.0.1:80::success_rate::-1
c::10.0.0.1:80::local_origin_success_rate::-1
`
	if out.String() != want {
		t.Errorf("%s", out.String())
	}
}
