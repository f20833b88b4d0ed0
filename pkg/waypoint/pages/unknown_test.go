package pages

import (
	"strings"
	"testing"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// A dump with an extension that is not known shows all the rest.
func TestUnknownExtensionsAreShownByName(t *testing.T) {
	manager, err := anypb.New(&hcmv3.HttpConnectionManager{StatPrefix: "in", HttpFilters: []*hcmv3.HttpFilter{{
		Name: "x", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: &anypb.Any{TypeUrl: "type.googleapis.com/some.vendor.Filter", Value: []byte{0x0a, 0x01, 'a'}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	text, err := marshal.Marshal(&adminv3.ConfigDump{Configs: []*anypb.Any{manager}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"some.vendor.Filter", `"in"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is not in the dump: %s", want, text)
		}
	}
}
