package door

import (
	"context"
	"net/netip"
	"testing"

	"github.com/fairlead-mesh/fairlead/test/condition"
)

func open(t *testing.T, o Options) *Door {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A stream whose connection is in goes before a connection that is not.
func TestStreamsGoFirst(t *testing.T) {
	d := open(t, Options{Turns: 1})
	crowd := netip.MustParseAddr("192.0.2.1")
	first, err := d.wait(t.Context(), who{from: crowd})
	if err != nil {
		t.Fatal(err)
	}
	let := make(chan who, 3)
	for i, w := range []who{{from: crowd}, {from: netip.MustParseAddr("192.0.2.2")}, {inside: true, from: crowd}} {
		go func() {
			turn, err := d.wait(t.Context(), w)
			if err != nil {
				t.Error(err)
				return
			}
			let <- w
			turn.End()
		}()
		condition.Await(t, "it waits", func() bool { return d.Waiting() == i+1 })
	}
	first.End()
	if w := <-let; !w.inside {
		t.Error("a connection was let in before")
	}
	<-let
	<-let
}

// The door's end sends away who waits.
func TestClose(t *testing.T) {
	d := open(t, Options{Turns: 1})
	first, err := d.wait(t.Context(), who{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := d.Begin(context.Background())
		ended <- err
	}()
	condition.Await(t, "one waits", func() bool { return d.Waiting() == 1 })
	d.Close()
	if err := <-ended; err == nil {
		t.Error("a turn after the end")
	}
	first.End()
	condition.Await(t, "nobody is left", func() bool { return d.given() == 0 && d.Waiting() == 0 })
}
