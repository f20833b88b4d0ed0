package push

import (
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/control/door"
)

// Streams begin one after the other: one that was told what it lacks makes room for the
// next before it has answered, and one that asks for nothing only holds the others up for
// a while.
func TestStreamsTakeTurnsToBegin(t *testing.T) {
	r := newRig(t)
	one, err := door.New(door.Options{Turns: 1})
	if err != nil {
		t.Fatal(err)
	}
	r.server.o.Door = one
	r.set([]string{"p=1"}, []string{"a=1"})
	for _, node := range []string{"n1", "n2", "n3"} {
		a := r.agent(node)
		a.subscribe(AuthorizationType, AddressType)
		for a.receive().TypeUrl != AddressType { // it does not answer
		}
	}
	start := time.Now()
	idle := r.agent("n4")
	idle.subscribe(AuthorizationType) // and not for workloads
	if got := idle.receive().TypeUrl; got != AuthorizationType {
		t.Fatalf("told of %s", got)
	}
	next := r.agent("n5")
	next.subscribe(AddressType)
	next.receive()
	if waited := time.Since(start); waited < longestStart {
		t.Errorf("the next began after %v, while the one before had not been told everything", waited)
	}
}
