package routing

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/net/http/httpguts"
	networkingapi "istio.io/api/networking/v1alpha3"
)

// headers are changes as Istio writes them. The authority is changed by its own
// field: Envoy does not let header operations touch it.
func (p *preparer) headers(path string, in *networkingapi.Headers) headers {
	var out headers
	if in == nil {
		return out
	}
	out.requestAdd, out.requestRemove, out.host = p.operations(path+".request", in.GetRequest(), true)
	out.responseAdd, out.responseRemove, _ = p.operations(path+".response", in.GetResponse(), false)
	return out
}

func (p *preparer) operations(path string, in *networkingapi.Headers_HeaderOperations, request bool) (add []*corev3.HeaderValueOption, remove []string, host string) {
	for _, name := range slices.Sorted(maps.Keys(in.GetSet())) {
		value := in.GetSet()[name]
		if request && isAuthority(name) {
			host = value
			continue
		}
		p.checkHeader(fmt.Sprintf("%s.set[%s]", path, name), name, value)
		add = append(add, setHeader(name, value))
	}
	for _, name := range slices.Sorted(maps.Keys(in.GetAdd())) {
		value := in.GetAdd()[name]
		if request && isAuthority(name) {
			host = value
			continue
		}
		p.checkHeader(fmt.Sprintf("%s.add[%s]", path, name), name, value)
		add = append(add, addHeader(name, value))
	}
	for i, name := range in.GetRemove() {
		if strings.HasPrefix(name, ":") || isAuthority(name) {
			p.fail(fmt.Sprintf("%s.remove[%d]", path, i), "%q cannot be removed", name)
		}
		remove = append(remove, name)
	}
	return add, remove, host
}

func isAuthority(name string) bool {
	return strings.EqualFold(name, ":authority") || strings.EqualFold(name, "host")
}

func setHeader(name, value string) *corev3.HeaderValueOption {
	o := addHeader(name, value)
	o.AppendAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	return o
}

func addHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: value}}
}

func (p *preparer) checkHeader(path, name, value string) {
	if err := headerError(name, value); err != nil {
		p.fail(path, "%v", err)
	}
}

func headerError(name, value string) error {
	switch {
	case strings.HasPrefix(name, ":"):
		return fmt.Errorf("%q is no header that can be changed", name)
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%q is not a header name", name)
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("%q is not a header value", value)
	case !format.MatchString(value):
		return fmt.Errorf(`%q is not a format: write "%%%%" for a percent sign, or a command like %%REQ(name)%%`, value)
	}
	return nil
}

// format is text with Envoy's commands in it. A command that Envoy does not know, or
// one without the argument it needs, makes it refuse the whole route configuration,
// so only known ones pass.
var format = regexp.MustCompile(`^([^%]|%%|%(` + strings.Join(plainCommands, "|") + `)%|%(` + strings.Join(argumentCommands, "|") + `)\([^()]+\)(:[0-9]+)?%|%START_TIME(\([^()]*\))?%)*$`)

var argumentCommands = []string{
	"REQ", "RESP", "TRAILER", "DYNAMIC_METADATA", "CLUSTER_METADATA", "UPSTREAM_METADATA", "METADATA", "FILTER_STATE", "UPSTREAM_FILTER_STATE", "ENVIRONMENT",
}

var plainCommands = []string{
	"PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS", "ROUTE_NAME", "VIRTUAL_CLUSTER_NAME", "REQUESTED_SERVER_NAME", "HOSTNAME",
	"UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_PORT",
	"UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT",
	"DOWNSTREAM_LOCAL_ADDRESS", "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_LOCAL_PORT",
	"DOWNSTREAM_REMOTE_ADDRESS", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_PORT",
	"DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_REMOTE_PORT",
	"DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_PEER_ISSUER",
	"DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_CERT",
	"CONNECTION_ID", "STREAM_ID", "BYTES_RECEIVED", "BYTES_SENT", "DURATION", "REQUEST_DURATION", "RESPONSE_DURATION",
}
