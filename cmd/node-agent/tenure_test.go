package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/handover"
)

// stillOwner owns a node without pods until it ends.
type stillOwner struct{ thawed chan struct{} }

func (o *stillOwner) Freeze() ([]handover.Sockets, error) { return nil, nil }
func (o *stillOwner) Thaw()                               { o.thawed <- struct{}{} }
func (o *stillOwner) End()                                {}
func (o *stillOwner) Carry(*handover.Giver)               {}

// A next agent owns the node when the one before has let go of it or is gone, and not before:
// where that one goes on it fails.
func TestTenureBeginsWithTheLock(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "agent.sock")
	log := slog.New(slog.DiscardHandler)
	begun := func(x *tenure) bool {
		select {
		case <-x.owned:
			return true
		default:
			return false
		}
	}
	first, err := begin(t.Context(), socket, log)
	if err != nil || !begun(first) || first.taker != nil {
		t.Fatalf("alone: %+v, %v", first, err)
	}
	// next is an agent that has got ready, when the first waits for it that long.
	next := func(patience time.Duration) (x *tenure, o *stillOwner, gone func()) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		o = &stillOwner{make(chan struct{}, 8)}
		gave := make(chan error, 1)
		go func() { gave <- handover.Give(ctx, first.socket, patience, o) }()
		for { // until it listens
			c, err := net.Dial("unixpacket", first.socket)
			if err == nil {
				c.Close()
				break
			}
		}
		<-o.thawed
		if x, err = begin(t.Context(), socket, log); err != nil || x.taker == nil || begun(x) {
			t.Fatalf("beside the first: %+v, %v", x, err)
		}
		return x, o, func() { cancel(); <-gave }
	}
	late, o, gone := next(time.Second)
	<-o.thawed
	if err := late.own(t.Context()); !errors.Is(err, handover.ErrKept) || begun(late) {
		t.Errorf("the first goes on: %v, begun %v", err, begun(late))
	}
	gone()
	heir, _, gone := next(time.Minute)
	gone()
	if err := first.lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := heir.own(t.Context()); err != nil || !begun(heir) {
		t.Errorf("the first is gone: %v, begun %v", err, begun(heir))
	}
}
