package differential

import (
	"fmt"
	"strings"
	"testing"
)

const connectUpstream = `circuit_breakers: {thresholds: [{max_retries: 1000}]}` + "\n" + `typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {allow_connect: true}}}}`

// WebSockets and other protocols are let through where the configuration allows them, by
// either version at either side, and carry bytes both ways.
func TestUpgrades(t *testing.T) {
	w := newWorld(t)
	w.cluster("up", manyRetries, 0)
	w.cluster("up2", connectUpstream, 1)
	managers := []string{
		`upgrade_configs: [{upgrade_type: websocket}]`, ``, `upgrade_configs: [{upgrade_type: websocket, enabled: false}]`, `upgrade_configs: [{upgrade_type: WebSocket}, {upgrade_type: other}]`,
	}
	routes := []string{``, `, upgrade_configs: [{upgrade_type: websocket}]`, `, upgrade_configs: [{upgrade_type: WebSocket, enabled: false}]`, `, retry_policy: {retry_on: 5xx, num_retries: 2}, timeout: 1s`}
	type one struct {
		port int
		what string
	}
	var all []one
	for _, m := range managers {
		for _, r := range routes {
			for _, c := range []string{"up", "up2"} {
				more := "http2_protocol_options: {allow_connect: true}\n" + m
				all = append(all, one{w.http(more, oneRoute("- {name: direct, match: {prefix: /direct}, direct_response: {status: 200}}\n- {name: r, match: {prefix: /w}, route: {cluster: @"+c+r+"}}")), fmt.Sprintf("%s, route%s, to %s", m, r, c)})
			}
		}
	}
	w.load()
	hello := []string{"connection: Upgrade", "upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"}
	requests := []request{
		{path: "/ws", fields: hello, script: "upgrade h=sec-websocket-accept:x", more: "ping"},
		{path: "/ws", fields: hello, script: "upgrade body=hello", more: strings.Repeat("0123456789", 20000), answers: 5},
		{path: "/ws", fields: hello, script: "upgrade body=bye last", all: true},
		{path: "/ws", fields: []string{"connection: keep-alive, upgrade", "upgrade: WebSocket"}, script: "upgrade", more: "ping"},
		{path: "/ws", fields: []string{"connection: upgrade", "upgrade: other"}, script: "upgrade", more: "ping"},
		{path: "/ws", fields: hello, script: "status=403 body=no"}, {path: "/ws", fields: hello, script: "status=200 body=plain"}, {path: "/ws", fields: hello, script: "status=503|status=503|upgrade", more: "ping"}, {path: "/ws", fields: hello, script: "close"},
		{path: "/ws", fields: []string{"upgrade: websocket"}}, {path: "/ws", fields: []string{"connection: upgrade"}}, {path: "/direct", fields: hello}, {path: "/none", fields: hello},
		{path: "/ws", h2: true, protocol: "websocket", fields: hello[2:], script: "upgrade body=hello", more: "ping", answers: 5},
		{path: "/ws", h2: true, protocol: "websocket", script: "upgrade body=bye last", answers: 100}, {path: "/ws", h2: true, protocol: "websocket", script: "status=403 body=no", answers: 100}, {path: "/ws", h2: true, protocol: "other", script: "upgrade", more: "ping"},
		{path: "/none", h2: true, protocol: "websocket", answers: 100},
	}
	for _, odd := range []bool{false, true} {
		b := w.batch(8)
		for _, o := range all {
			for _, r := range requests {
				switch plain := strings.HasPrefix(r.script, "status=200"); {
				case plain != odd:
				case strings.HasSuffix(o.what, "to up2") && (r.script == "close" || plain):
					// One would end other requests, too, and the other is the upgrade itself in HTTP/2.
				default:
					b.send(o.what+" on "+describe(r)+fmt.Sprintf(" %s and %d bytes", r.protocol, len(r.more)), o.port, r)
				}
			}
		}
		b.work.Wait()
		w.compare()
		if !odd {
			w.compareStats()
		}
	}
}
