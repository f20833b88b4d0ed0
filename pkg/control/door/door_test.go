package door

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var (
	crowd  = netip.MustParseAddr("192.0.2.1")
	single = netip.MustParseAddr("192.0.2.2")
)

func open(t *testing.T, o Options) *Door {
	t.Helper()
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func take(t *testing.T, d *Door, from netip.Addr) *Turn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	turn, err := d.wait(ctx, &d.outside, from)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// queue has some wait, one after the other; what they get is told in order.
func queue(t *testing.T, d *Door, from ...netip.Addr) <-chan netip.Addr {
	t.Helper()
	let := make(chan netip.Addr, len(from))
	for i, a := range from {
		go func() {
			turn, err := d.wait(t.Context(), &d.outside, a)
			if err == nil {
				let <- a
				turn.End()
			}
		}()
		eventually(t, "it waits", func() bool { return d.Waiting() == i+1 })
	}
	return let
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-deadline:
			t.Fatal("not in 30 s: " + what)
		case <-time.After(time.Millisecond):
		}
	}
}

// One address with many does not keep out another with one.
func TestAddressesTakeTurns(t *testing.T) {
	d := open(t, Options{Turns: 1})
	first := take(t, d, crowd)
	let := queue(t, d, crowd, crowd, crowd, crowd, single)
	first.End()
	first.End() // once is enough
	<-let
	if second := <-let; second != single {
		t.Errorf("after one of the crowd came %v", second)
	}
	for range 3 {
		<-let
	}
	eventually(t, "all turns have ended", func() bool { d.mu.Lock(); defer d.mu.Unlock(); return d.turns == 0 && d.memory == 0 })
}

// A stream whose connection is in goes before a connection that is not.
func TestStreamsGoFirst(t *testing.T) {
	d := open(t, Options{Turns: 1})
	first := take(t, d, crowd)
	let := queue(t, d, crowd, single)
	inside := make(chan *Turn)
	go func() {
		turn, _ := d.wait(t.Context(), &d.inside, crowd)
		inside <- turn
	}()
	eventually(t, "the stream waits too", func() bool { return d.Waiting() == 3 })
	first.End()
	turn := <-inside
	if len(let) > 0 {
		t.Error("a connection was let in before")
	}
	turn.End()
	<-let
	<-let
}

// A crowd is told of once when it comes and once when all are in.
func TestCrowd(t *testing.T) {
	var told []bool
	d := open(t, Options{Turns: 2, Crowded: func(now bool) { told = append(told, now) }})
	one, two := take(t, d, crowd), take(t, d, crowd)
	let := queue(t, d, crowd, single, crowd)
	one.End()
	for range 3 {
		<-let
	}
	two.End()
	eventually(t, "nobody is in", func() bool { return d.given() == 0 })
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v", told)
	}
}

// What those within may hold bounds how many they are, but one always may.
func TestMemoryBoundsTurns(t *testing.T) {
	size := int64(40)
	d := open(t, Options{Turns: 10, Memory: 100, Size: func() int64 { return size }})
	one, two := take(t, d, crowd), take(t, d, crowd)
	let := queue(t, d, crowd)
	select {
	case <-let:
		t.Fatal("a third was let in")
	default:
	}
	one.End()
	<-let
	two.End()
	size = 1000
	take(t, d, crowd).End()
}

// Who does not wait any more is not given a turn, and the door's end sends all away.
func TestWaitEnds(t *testing.T) {
	d := open(t, Options{Turns: 1})
	first := take(t, d, crowd)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := d.wait(ctx, &d.outside, single); err == nil {
		t.Error("a turn that nobody had")
	}
	ended := make(chan error)
	go func() {
		_, err := d.wait(t.Context(), &d.outside, single)
		ended <- err
	}()
	eventually(t, "one waits", func() bool { return d.Waiting() == 1 })
	d.Close()
	if err := <-ended; err == nil {
		t.Error("a turn after the end")
	}
	first.End()
	if d.Waiting() != 0 || len(d.outside.by) != 0 || d.outside.order.Len() != 0 {
		t.Error("somebody is left")
	}
}

// How many wait is bounded, and one address leaves room for others.
func TestLinesAreBounded(t *testing.T) {
	d := open(t, Options{Turns: 1})
	defer take(t, d, crowd).End()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range maxWaiting / 2 {
		go func() { _, _ = d.wait(ctx, &d.outside, crowd) }()
	}
	eventually(t, "half the places are taken", func() bool { return d.Waiting() == maxWaiting/2 })
	if _, err := d.wait(ctx, &d.outside, crowd); err == nil || ctx.Err() != nil {
		t.Error("one address has more than half of the places")
	}
	waits := make(chan error, 1)
	go func() { _, err := d.wait(ctx, &d.outside, single); waits <- err }()
	eventually(t, "another address waits", func() bool { return d.Waiting() == maxWaiting/2+1 })
	cancel()
	<-waits
	eventually(t, "all have left", func() bool { return d.Waiting() == 0 })
}
