package rbac

import (
	"net/netip"
	"strings"
	"testing"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// policies is an RBAC whose only policy, p, has these parts.
func policies(t *testing.T, action, permission, principal string) *rbacconfigv3.RBAC {
	t.Helper()
	r := &rbacconfigv3.RBAC{}
	text := `{"action": "` + action + `", "policies": {"p": {"permissions": [` + permission + `], "principals": [` + principal + `]}}}`
	if err := protojson.Unmarshal([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	return r
}

const anyone = `{"any": true}`

// request is GET /admin?x=/free of 10.0.0.7 to 10.0.0.9:8080, by shop/caller, whom a
// proxy at 10.0.0.8 spoke for.
func request() *streaminfo.Info {
	return &streaminfo.Info{
		Connection: &streaminfo.Connection{
			Remote:       netip.MustParseAddrPort("10.0.0.7:4000"),
			DirectRemote: netip.MustParseAddrPort("10.0.0.8:4000"),
			Local:        netip.MustParseAddrPort("10.0.0.9:8080"),
			ServerName:   "api.example.com",
			FilterState:  map[string]string{"io.istio.peer_principal": "spiffe://cluster.local/ns/shop/sa/caller"},
		},
		Request: &message.Request{Method: "GET", Authority: "api", Path: "/admin?x=/free", Fields: message.Fields{{Name: "x-team", Value: "blue"}}},
	}
}

func TestPartsOfPolicies(t *testing.T) {
	for _, tc := range []struct {
		name, permission, principal string
		holds                       bool
	}{
		{"anything", anyone, anyone, true},
		{"path without its query", `{"urlPath": {"path": {"exact": "/admin"}}}`, anyone, true},
		{"path's query does not count", `{"urlPath": {"path": {"suffix": "/free"}}}`, anyone, false},
		{"template", `{"uriTemplate": {"name": "t", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", "pathTemplate": "/{a=*}"}}}`, anyone, true},
		{"header", `{"header": {"name": "x-team", "stringMatch": {"exact": "blue"}}}`, anyone, true},
		{"method", `{"header": {"name": ":method", "stringMatch": {"exact": "POST"}}}`, anyone, false},
		{"port", `{"destinationPort": 8080}`, anyone, true},
		{"range is half open", `{"destinationPortRange": {"start": 8000, "end": 8080}}`, anyone, false},
		{"address", `{"destinationIp": {"addressPrefix": "10.0.0.0", "prefixLen": 24}}`, anyone, true},
		{"server name", `{"requestedServerName": {"exact": "api.example.com"}}`, anyone, true},
		{"all of", `{"andRules": {"rules": [{"destinationPort": 8080}, {"destinationPort": 81}]}}`, anyone, false},
		{"one of", `{"orRules": {"rules": [{"destinationPort": 8080}, {"destinationPort": 81}]}}`, anyone, true},
		{"not", `{"notRule": {"destinationPort": 8080}}`, anyone, false},
		{"principal", anyone, `{"filterState": {"key": "io.istio.peer_principal", "stringMatch": {"exact": "spiffe://cluster.local/ns/shop/sa/caller"}}}`, true},
		{"another principal", anyone, `{"filterState": {"key": "io.istio.peer_principal", "stringMatch": {"exact": "spiffe://cluster.local/ns/shop/sa/other"}}}`, false},
		{"certificate of a connection without TLS", anyone, `{"authenticated": {}}`, false},
		{"peer", anyone, `{"directRemoteIp": {"addressPrefix": "10.0.0.8", "prefixLen": 32}}`, true},
		{"client", anyone, `{"remoteIp": {"addressPrefix": "10.0.0.7", "prefixLen": 32}}`, true},
		{"not one of", anyone, `{"notId": {"orIds": {"ids": [{"any": true}]}}}`, false},
		{"both of", anyone, `{"andIds": {"ids": [{"any": true}, {"notId": {"any": true}}]}}`, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for action, allowed := range map[string]bool{"ALLOW": tc.holds, "DENY": !tc.holds, "LOG": true} {
				e, err := CompileHTTP(&httpv3.RBAC{Rules: policies(t, action, tc.permission, tc.principal)})
				if err != nil {
					t.Fatal(err)
				}
				got, policy := e.Request(request())
				if got != allowed || (policy == "p") != tc.holds {
					t.Errorf("%s: allowed %t by %q, want %t", action, got, policy, allowed)
				}
			}
		})
	}
}

// A connection has no request: what asks for one does not hold, and its opposite does.
func TestConnectionsHaveNoRequest(t *testing.T) {
	for permission, want := range map[string]bool{
		`{"header": {"name": "x-team", "presentMatch": true}}`:                          false,
		`{"urlPath": {"path": {"prefix": "/"}}}`:                                        false,
		`{"notRule": {"header": {"name": ":method", "stringMatch": {"exact": "GET"}}}}`: true,
	} {
		e, err := compile(policies(t, "ALLOW", permission, anyone))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := e.Connection(request().Connection); got != want {
			t.Errorf("%s: allowed %t, want %t", permission, got, want)
		}
	}
}

// An engine without rules decides nothing; one with rules and no policy allows nobody.
func TestNoPolicies(t *testing.T) {
	for name, tc := range map[string]struct {
		rules *rbacconfigv3.RBAC
		want  bool
	}{
		"no rules":        {nil, true},
		"no ALLOW policy": {&rbacconfigv3.RBAC{}, false},
		"no DENY policy":  {&rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY}, true},
	} {
		e, err := CompileHTTP(&httpv3.RBAC{Rules: tc.rules})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := e.Request(request()); got != tc.want {
			t.Errorf("%s: allowed %t", name, got)
		}
	}
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	unknown := policies(t, "ALLOW", anyone, anyone)
	unknown.Action = 7
	for want, rules := range map[string]*rbacconfigv3.RBAC{
		"rules.action: 7 is not known":         unknown,
		"rules.policies[p].permissions[0]":     policies(t, "ALLOW", `{"sourcedMetadata": {}}`, anyone),
		"rules.policies[p].principals[0]: not": policies(t, "DENY", anyone, `{"notId": {"sourcedMetadata": {}}}`),
	} {
		if _, err := CompileHTTP(&httpv3.RBAC{Rules: rules}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
