package push

import (
	"fmt"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// What a client has remembered of its wishes is bounded in bytes: whoever may write a Gateway has
// a waypoint's account.
func TestNamesAreBoundedInBytes(t *testing.T) {
	r := newRig(t)
	r.configure("one", []string{"c"}, nil, nil, nil)
	a := r.waypoint("one", nil)
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := a.stream.Recv(); err != nil {
				ended <- err
				return
			}
		}
	}()
	// The same ones again and again are what they were; others are more.
	for i := range 30 {
		if err := a.stream.Send(r.naming(a, i%2)); err != nil {
			t.Fatal(err, <-ended)
		}
	}
	for i := range 30 {
		if a.stream.Send(r.naming(a, i)) != nil {
			break // it has ended
		}
	}
	if err := <-ended; status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "names") {
		t.Error(err)
	}
}

// naming asks for half a mebibyte of names.
func (r *rig) naming(a *agent, i int) *discovery.DeltaDiscoveryRequest {
	r.t.Helper()
	return &discovery.DeltaDiscoveryRequest{Node: a.node, TypeUrl: EndpointType, ResourceNamesSubscribe: []string{fmt.Sprint(i) + strings.Repeat("x", 512<<10)}}
}

// A client that calls itself ever different things has a Gateway's configuration made anew for
// each, which all others wait for.
func TestFormsAreBounded(t *testing.T) {
	r := newRig(t)
	r.configure("one", []string{"c"}, nil, nil, nil)
	r.configure("other", []string{"c"}, nil, nil, nil)
	as := func(account string, labels map[string]any) error {
		a := r.waypoint(account, map[string]any{"LABELS": labels})
		a.ask(ClusterType)
		_, err := a.stream.Recv()
		return err
	}
	refused := 0
	for i := range 2 * formsAtOnce {
		switch err := as("one", map[string]any{"x": fmt.Sprint(i)}); status.Code(err) {
		case codes.OK:
		case codes.ResourceExhausted:
			refused++
		default:
			t.Fatal(err)
		}
	}
	if refused < formsAtOnce/2 {
		t.Errorf("%d of %d forms are refused", refused, 2*formsAtOnce)
	}
	if err := as("other", nil); err != nil {
		t.Errorf("another Gateway's waypoint: %v", err)
	}
	if err := as("one", map[string]any{"x": strings.Repeat("x", maxLabelSize)}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a label that no pod has: %v", err)
	}
	many := map[string]any{}
	for i := range maxLabels + 1 {
		many[fmt.Sprint(i)] = ""
	}
	if err := as("one", many); status.Code(err) != codes.InvalidArgument {
		t.Errorf("labels that no pod has: %v", err)
	}
}
