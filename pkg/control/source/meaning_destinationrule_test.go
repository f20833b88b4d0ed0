package source

import (
	"strings"
	"testing"
)

func destinationRule(spec string) string {
	return "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: d}\nspec:\n  host: a\n  " + spec + "\n"
}

func TestDestinationRuleMessages(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"host", strings.Replace(destinationRule(""), "host: a", "host: a b", 1), `a.yaml:5: error: DestinationRule default/d: spec.host: "a b": label "a b":`},
		{"subset twice", destinationRule("subsets: [{name: v1}, {name: v1}]"), `spec.subsets[1].name: subset "v1" stands already in spec.subsets[0]`},
		{"lost limits", destinationRule("trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http2MaxRequests: 2}}}\n  subsets: [{name: v1, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 3}}}}]"), "warning: DestinationRule default/d: spec.subsets[0].trafficPolicy.connectionPool: takes the place of the rule's connectionPool as a whole; these limits no longer apply to the subset: tcp.maxConnections"},
		{"hash without key", destinationRule("trafficPolicy: {loadBalancer: {consistentHash: {}}}"), "spec.trafficPolicy.loadBalancer.consistentHash: needs one of httpHeaderName"},
		{"cookie path", destinationRule(`trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, path: "/; Domain=x"}}}}`), `httpCookie.path: "/; Domain=x" has a character that a cookie's attribute cannot have: ';'`},
		{"cookie attribute", destinationRule(`trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{value: x}]}}}}`), `httpCookie.attributes[0].name: "" is not the name of a cookie's attribute, such as SameSite`},
		{"cookie attribute's value", destinationRule(`trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: a, attributes: [{name: x, value: "a\r\nb"}]}}}}`), `httpCookie.attributes[0].value: "a\r\nb" has a character that a cookie's attribute cannot have: '\r'`},
		{"maglev", destinationRule("trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 65536}}}}"), "maglev.tableSize: 65536 is not a prime up to 5000011, such as 65537"},
		{"distribute", destinationRule(`trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: "a/*", to: {"a/*": 50, "b": 40}}]}}}`), "localityLbSetting.distribute[0].to: the weights add up to 90, not to 100"},
		{"both localities", destinationRule(`trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: "*", to: {"*": 100}}], failover: [{from: a, to: b}]}}}`), "only one of distribute and failover can be set"},
		{"failover to itself", destinationRule(`trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}}`), `failover[0].to: "a" is the region that it fails over from`},
		{"warmup", destinationRule("trafficPolicy: {loadBalancer: {simple: RANDOM, warmup: {aggression: 0.5}}}"), "loadBalancer.warmup.duration: a duration is needed"},
		{"negative", destinationRule("trafficPolicy: {connectionPool: {tcp: {maxConnections: -1}}}"), "spec.trafficPolicy.connectionPool.tcp.maxConnections: -1 is negative"},
		{"too short", destinationRule("trafficPolicy: {connectionPool: {tcp: {connectTimeout: 1us}}}"), "connectTimeout: 1µs is shorter than 1ms"},
		{"percent", destinationRule("trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}"), "outlierDetection.maxEjectionPercent: 101 is not between 0 and 100"},
		{"local origin", destinationRule("trafficPolicy: {outlierDetection: {consecutiveLocalOriginFailures: 3}}"), "counts only where splitExternalLocalOriginErrors is true"},
		{"client certificate", destinationRule("trafficPolicy: {tls: {mode: MUTUAL}}"), "spec.trafficPolicy.tls.clientCertificate: mode MUTUAL needs a client certificate"},
		{"the mesh's own", destinationRule("trafficPolicy: {tls: {mode: ISTIO_MUTUAL, privateKey: k}}"), "tls.privateKey: mode ISTIO_MUTUAL takes the mesh's own certificates"},
		{"a gateway's secret", destinationRule("trafficPolicy: {tls: {mode: SIMPLE, credentialName: c}}"), "tls.credentialName: is read by gateways alone"},
		{"port", destinationRule("trafficPolicy: {portLevelSettings: [{port: {number: 0}}]}"), "portLevelSettings[0].port.number: port 0 is not between 1 and 65535"},
		{"port's own", destinationRule("trafficPolicy: {portLevelSettings: [{port: {number: 80}, tls: {mode: MUTUAL}}]}"), "portLevelSettings[0].tls.clientCertificate: mode MUTUAL needs"},
		{"export", destinationRule("exportTo: [A_b]"), `spec.exportTo[0]: "A_b" is neither`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := strings.Join(lines(parseOne(tc.text)), "\n"); !strings.Contains(got, tc.want) {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}
