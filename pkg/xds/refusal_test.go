package xds

import (
	"net/netip"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairlead-mesh/fairlead/api/security"
	"github.com/fairlead-mesh/fairlead/api/workload"
	"github.com/fairlead-mesh/fairlead/pkg/authz"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func policy(t *testing.T, name string, m proto.Message) *discovery.Resource {
	t.Helper()
	packed, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return &discovery.Resource{Name: name, Resource: packed}
}

// unreadable is a policy with a condition that this version does not know.
func unreadable(a *security.Authorization) *security.Authorization {
	a.Name, a.Namespace = "p", "ns"
	a.Groups = []*security.Group{{Rules: []*security.Rules{{Matches: []*security.Match{{Extensions: []*security.Extension{{Name: "new"}}}}}}}}
	return a
}

// A policy that cannot be read may never open what it closes, whichever action and
// scope it has; and it closes no more than it was for.
func TestUnreadablePolicyFailsClosed(t *testing.T) {
	garbage := &discovery.Resource{Name: "ns/p", Resource: &anypb.Any{TypeUrl: AuthorizationType, Value: []byte{0xff}}}
	for name, c := range map[string]struct {
		resource *discovery.Resource
		scope    mesh.PolicyScope
		action   mesh.PolicyAction
	}{
		"DENY of a workload":     {policy(t, "ns/p", unreadable(&security.Authorization{Scope: security.Scope_WORKLOAD_SELECTOR, Action: security.Action_DENY})), mesh.ScopeWorkload, mesh.ActionDeny},
		"DENY of the mesh":       {policy(t, "ns/p", unreadable(&security.Authorization{Scope: security.Scope_GLOBAL, Action: security.Action_DENY})), mesh.ScopeGlobal, mesh.ActionDeny},
		"ALLOW of a namespace":   {policy(t, "ns/p", unreadable(&security.Authorization{Scope: security.Scope_NAMESPACE})), mesh.ScopeNamespace, mesh.ActionAllow},
		"unknown action":         {policy(t, "ns/p", unreadable(&security.Authorization{Scope: security.Scope_GLOBAL, Action: 9})), mesh.ScopeGlobal, mesh.ActionDeny},
		"unknown scope":          {policy(t, "ns/p", unreadable(&security.Authorization{Scope: 9, Action: security.Action_DENY})), mesh.ScopeNamespace, mesh.ActionDeny},
		"not even a message":     {garbage, mesh.ScopeNamespace, mesh.ActionDeny},
		"under another's name":   {policy(t, "ns/p", &security.Authorization{Name: "q", Namespace: "ns", Action: security.Action_DENY}), mesh.ScopeGlobal, mesh.ActionDeny},
		"of another type's name": {&discovery.Resource{Name: "ns/p", Resource: &anypb.Any{TypeUrl: AddressType}}, mesh.ScopeNamespace, mesh.ActionDeny},
	} {
		t.Run(name, func(t *testing.T) {
			d := Decode(AuthorizationType, []*discovery.Resource{c.resource}, nil)
			if len(d.Rejected) != 1 || len(d.Delta.Policies) != 0 || len(d.StandIns) != 1 {
				t.Fatalf("decoded %+v", d)
			}
			p := d.StandIns[0]
			if p.Key() != "ns/p" || p.Scope != c.scope || p.Action != c.action || p.DryRun {
				t.Errorf("stand-in %+v", p)
			}
			conn := authz.Conn{Destination: netip.MustParseAddrPort("10.0.0.1:80")}
			if authz.Evaluate([]*mesh.Policy{p}, conn).Allow {
				t.Error("the stand-in lets a connection pass")
			}
		})
	}
	dry := Decode(AuthorizationType, []*discovery.Resource{policy(t, "ns/p", unreadable(&security.Authorization{DryRun: true}))}, nil)
	if len(dry.StandIns) != 0 || len(dry.Rejected) != 1 {
		t.Errorf("a dry-run policy is enforced: %+v", dry)
	}
}

func TestRefusedPolicyKeepsItsEarlierForm(t *testing.T) {
	applied := &recorder{}
	_, s := start(t, Options{Applier: applied})
	s.request(t)
	s.request(t)
	exchange := func(nonce string, resources ...*discovery.Resource) *discovery.DeltaDiscoveryRequest {
		s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: AuthorizationType, Nonce: nonce, Resources: resources}
		return s.request(t)
	}
	good := &security.Authorization{Name: "p", Namespace: "ns", Action: security.Action_DENY}
	if ack := exchange("1", policy(t, "ns/p", good)); ack.ErrorDetail != nil {
		t.Fatalf("refused: %v", ack)
	}
	// Its next form cannot be read: nothing is put in place of the earlier one.
	if nack := exchange("2", policy(t, "ns/p", unreadable(&security.Authorization{Action: security.Action_DENY}))); nack.ErrorDetail == nil {
		t.Error("taken")
	}
	if d := applied.last(); len(d.Policies) != 0 {
		t.Errorf("the earlier form was replaced: %+v", d.Policies[0])
	}
	// One without an earlier form gets a stand-in.
	other := unreadable(&security.Authorization{Action: security.Action_DENY})
	other.Name = "q"
	if nack := exchange("3", policy(t, "ns/q", other)); nack.ErrorDetail == nil {
		t.Error("taken")
	}
	if d := applied.last(); len(d.Policies) != 1 || d.Policies[0].Key() != "ns/q" {
		t.Errorf("no stand-in: %+v", d)
	}
	// Both are told at the next connection, without a version: sent again or removed.
	s.hangUp <- struct{}{}
	if first := s.request(t); !cmp.Equal(map[string]string{"ns/p": "", "ns/q": ""}, first.InitialResourceVersions) {
		t.Errorf("told: %v", first.InitialResourceVersions)
	}
}

// watcher looks at the client's versions from within Apply, as the one who keeps
// them on disk may.
type watcher struct {
	recorder
	look func(mesh.Delta)
}

func (w *watcher) Apply(d mesh.Delta) error {
	w.look(d)
	return w.recorder.Apply(d)
}

// A state that is kept while a response is applied may not carry a version that it
// does not have: after a restart the server would send nothing.
func TestVersionIsUnknownWhileItChanges(t *testing.T) {
	seen := make(chan map[string]string, 1)
	var c *Client
	w := &watcher{}
	ready := make(chan struct{})
	w.look = func(mesh.Delta) {
		<-ready
		seen <- c.Versions()[AddressType]
	}
	c, s := start(t, Options{Applier: w, Known: Versions{AddressType: {"a": "v1", "b": "v1", "gone": "v1"}}})
	close(ready)
	s.request(t)
	s.request(t)
	s.send <- &discovery.DeltaDiscoveryResponse{TypeUrl: AddressType, Nonce: "1", RemovedResources: []string{"gone"}, Resources: []*discovery.Resource{
		address(t, "a", "v2", &workload.Workload{Uid: "a"}), address(t, "c", "v1", &workload.Workload{Uid: "c"})}}
	if got := <-seen; !cmp.Equal(map[string]string{"a": "", "b": "v1", "c": "", "gone": ""}, got) {
		t.Errorf("during: %v", got)
	}
	s.request(t)
	if got := c.Versions()[AddressType]; !cmp.Equal(map[string]string{"a": "v2", "b": "v1", "c": "v1"}, got) {
		t.Errorf("after: %v", got)
	}
}
