package ztunnel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// nameLife is how long an answer is used.
	nameLife = 10 * time.Second
	// maxNames bounds the answers kept; they are forgotten together.
	maxNames = 1_024
)

// names resolves endpoints that the mesh knows by host name only.
type names struct {
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// mu guards below.
	mu    sync.Mutex
	known map[string]answer
}

type answer struct {
	addrs []netip.Addr
	until time.Time
}

func newNames(resolve func(context.Context, string) ([]netip.Addr, error)) *names {
	if resolve == nil {
		resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &names{resolve: resolve, known: map[string]answer{}}
}

// find returns the first address of host, of the wanted family if there is one.
func (n *names) find(ctx context.Context, host string, wantIPv6 bool) (netip.Addr, error) {
	n.mu.Lock()
	a, ok := n.known[host]
	n.mu.Unlock()
	if !ok || time.Now().After(a.until) {
		addrs, err := n.resolve(ctx, host)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("resolve the endpoint %s: %w", host, err)
		}
		a = answer{addrs, time.Now().Add(nameLife)}
		n.mu.Lock()
		if len(n.known) >= maxNames {
			clear(n.known)
		}
		n.known[host] = a
		n.mu.Unlock()
	}
	var other netip.Addr
	for _, addr := range a.addrs {
		addr = addr.Unmap()
		if addr.Is6() == wantIPv6 {
			return addr, nil
		}
		if !other.IsValid() {
			other = addr
		}
	}
	if !other.IsValid() {
		return other, fmt.Errorf("resolve the endpoint %s: no address", host)
	}
	return other, nil
}
