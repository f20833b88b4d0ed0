// Package policies holds what AuthorizationPolicies mean, from the objects to the
// decision: random policies are translated, and random calls decided by three that
// share nothing, a reading of the API's reference, an evaluator of Envoy's filters
// as they are documented, and our waypoint's engine.
package policies

import (
	"fmt"
	"strconv"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/fairlead-mesh/fairlead/pkg/control/model"
	"github.com/fairlead-mesh/fairlead/pkg/control/rbac"
	"github.com/fairlead-mesh/fairlead/pkg/control/source"
	"github.com/fairlead-mesh/fairlead/pkg/control/translate"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	engine "github.com/fairlead-mesh/fairlead/pkg/waypoint/rbac"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

// filters are the filters of one chain, in order, for both who decide by them.
type filters struct {
	t       *testing.T
	rules   []*rbacv3.RBAC
	engines []*engine.Engine
}

func httpFilters(t *testing.T, p *rbac.Policies, w *model.Waypoint, s *model.Service, port *model.Port) *filters {
	t.Helper()
	all, err := p.HTTPFilters(w, s, port)
	if err != nil {
		t.Fatal(err)
	}
	out := &filters{t: t}
	for _, f := range all {
		config := &httprbacv3.RBAC{}
		if err := f.GetTypedConfig().UnmarshalTo(config); err != nil {
			t.Fatal(err)
		}
		if err := config.ValidateAll(); err != nil {
			t.Fatal(err)
		}
		e, err := engine.CompileHTTP(config)
		if err != nil {
			t.Fatal(err)
		}
		out.rules, out.engines = append(out.rules, config.Rules), append(out.engines, e)
	}
	return out
}

func networkFilters(t *testing.T, p *rbac.Policies, w *model.Waypoint, s *model.Service, port *model.Port) *filters {
	t.Helper()
	all, err := p.NetworkFilters(w, s, port)
	if err != nil {
		t.Fatal(err)
	}
	out := &filters{t: t}
	for _, f := range all {
		if f.Name == "envoy.filters.network.set_filter_state" {
			continue // what it sets is a property of calls here
		}
		config := &netrbacv3.RBAC{}
		if err := f.GetTypedConfig().UnmarshalTo(config); err != nil {
			t.Fatal(err)
		}
		if err := config.ValidateAll(); err != nil {
			t.Fatal(err)
		}
		e, err := engine.CompileNetwork(config)
		if err != nil {
			t.Fatal(err)
		}
		out.rules, out.engines = append(out.rules, config.Rules), append(out.engines, e)
	}
	return out
}

// allowed decides twice; the two must agree.
func (f *filters) allowed(c *call) bool {
	f.t.Helper()
	documented, ours := evaluator{f.t}.allowed(f.rules, c), true
	i := c.info()
	for _, e := range f.engines {
		allowed, _ := e.Request(i)
		ours = ours && allowed
	}
	if documented != ours {
		f.t.Fatalf("%+v: as documented the filters allow %v, our engine %v\n%v", c, documented, ours, f.rules)
	}
	return ours
}

// info is a call as the engine sees it.
func (c *call) info() *streaminfo.Info {
	i := &streaminfo.Info{Connection: &streaminfo.Connection{ServerName: c.sni, Local: c.to, FilterState: map[string]string{}}}
	i.FilterState["fairlead.dev/waited"] = strconv.Itoa(c.waited)
	i.Remote, i.DirectRemote = addrPort(c.remote), addrPort(c.direct)
	if c.identity != "" {
		i.FilterState["io.istio.peer_principal"] = c.identity
	}
	if c.headers == nil {
		return i
	}
	i.Request = &message.Request{Version: message.HTTP11, Scheme: "http", Method: c.headers[":method"], Authority: c.headers[":authority"], Path: c.headers[":path"]}
	if token, ok := c.headers["x-token"]; ok {
		i.Request.Fields.Add("x-token", token)
	}
	return i
}

// world translates YAML as the control plane does.
func world(t *testing.T, texts ...string) (*model.Model, *rbac.Policies) {
	t.Helper()
	var files []source.File
	for i, text := range texts {
		files = append(files, source.File{Name: fmt.Sprintf("%d.yaml", i), Data: []byte(text)})
	}
	out, err := translate.Translate(source.Parse(files, nil), translate.Options{ClusterID: "c1"})
	if err != nil {
		t.Fatal(err)
	}
	return out.Model, rbac.New(out.Model, rbac.NewLayer4(out.Policies, out.Addresses))
}
