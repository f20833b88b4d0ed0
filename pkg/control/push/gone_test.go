package push

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// A stream outlives neither its pod nor, by that, what the pod's token was good for; where it
// cannot be found out whether the pod is there, it goes on.
func TestStreamsEndWithTheirPods(t *testing.T) {
	r := newRig(t)
	gone, stays, unknown := r.agent("n1"), r.agent("n2"), r.agent("n3")
	for _, a := range []*agent{gone, stays, unknown} {
		a.subscribe(AuthorizationType)
		a.wants("policies ")
	}
	exists := func(_ context.Context, c token.Caller) (bool, error) {
		if c.Node == "n3" {
			return false, errors.New("the API server is away")
		}
		return c.Node != "n1", nil
	}
	for range 2 { // the second finds nobody to send away
		r.server.look(t.Context(), exists)
	}
	if _, err := gone.stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("the one whose pod is gone: %v", err)
	}
	r.set([]string{"p"}, nil)
	stays.wants("policies +p")
	unknown.wants("policies +p")
}
