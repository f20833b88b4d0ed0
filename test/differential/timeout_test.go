package differential

import "testing"

func TestTimeouts(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", manyRetries, 0)
	w.cluster("up2", `circuit_breakers: {thresholds: [{max_retries: 1000}]}`+"\n"+http2Upstream, 1)
	for _, c := range []string{"up", "up2"} {
		routes := []string{
			`timeout: 0.8s`, `timeout: 0s`, `timeout: 2s, retry_policy: {retry_on: 5xx, num_retries: 2, per_try_timeout: 0.3s, retry_back_off: {base_interval: 0.001s}}`, `timeout: 3s, retry_policy: {retry_on: reset, num_retries: 1, per_try_timeout: 0.4s}`,
			`timeout: 5s, idle_timeout: 0.8s`, `timeout: 5s, retry_policy: {retry_on: 5xx, num_retries: 1, per_try_idle_timeout: 0.2s}`, `max_stream_duration: {max_stream_duration: 0.9s}, timeout: 0s`, `timeout: 5s, max_grpc_timeout: 0.8s`,
			`max_stream_duration: {grpc_timeout_header_max: 0s}, timeout: 5s`, `max_stream_duration: {grpc_timeout_header_max: 0.8s}, timeout: 5s`, `max_stream_duration: {grpc_timeout_header_max: 0s, grpc_timeout_header_offset: 0.1s}, timeout: 5s`, `timeout: 5s, max_grpc_timeout: 0s, grpc_timeout_offset: 0.05s`, `max_stream_duration: {max_stream_duration: 0s, grpc_timeout_header_max: 0.8s, grpc_timeout_header_offset: 0.1s}, timeout: 1s`, `max_stream_duration: {max_stream_duration: 0s}, timeout: 1s`,
		}
		var ports []int
		for _, r := range routes {
			ports = append(ports, w.http("", oneRoute(`- {match: {prefix: /}, route: {cluster: @`+c+`, `+r+`}}`)))
		}
		manager := []string{`stream_idle_timeout: 0.8s`, `request_timeout: 0.8s`, `request_headers_timeout: 0.8s`, `common_http_protocol_options: {max_stream_duration: 0.9s}`}
		for _, m := range manager {
			routes = append(routes, m)
			ports = append(ports, w.http(m, oneRoute(`- {match: {prefix: /}, route: {cluster: @`+c+`, timeout: 0s}}`)))
		}
		w.load()
		b := w.batch(24)
		grpc := []string{"content-type: application/grpc", "te: trailers"}
		for i, port := range ports {
			for _, r := range []request{{script: "delay=2500ms body=x"}, {script: "body=12345678 pause=2500ms"}, {script: "body=x"}, {method: "POST", body: "abc", script: "delay=2500ms"}, {script: "delay=2500ms", h2: true}, {script: "body=12345678 pause=2500ms", h2: true},
				{method: "POST", h2: true, fields: append(grpc, "grpc-timeout: 200m"), script: "delay=2500ms h=content-type:application/grpc t=grpc-status:0"}, {method: "POST", h2: true, fields: append(grpc, "grpc-timeout: 1H"), script: "delay=2500ms h=content-type:application/grpc t=grpc-status:0"},
				{method: "POST", h2: true, fields: append(grpc, "grpc-timeout: nonsense"), script: "delay=2500ms h=content-type:application/grpc t=grpc-status:0"}, {method: "POST", h2: true, fields: grpc, script: "delay=2500ms h=content-type:application/grpc t=grpc-status:0"},
				{script: "delay=2500ms", fields: []string{"x-envoy-upstream-rq-timeout-ms: 100"}}, {raw: "POST / HTTP/1.1\r\nhost: x\r\nx-case: @CASE@\r\ncontent-length: 10\r\n\r\nabc", patience: 4000e6}, {raw: "GET / HTTP/1.1\r\nhost: x\r\nx-cas", patience: 2500e6}} {
				b.send(c+" "+routes[i]+" on "+describe(r)+r.raw, port, r)
			}
		}
		b.work.Wait()
	}
	w.compare()
	w.compareStats()
}
