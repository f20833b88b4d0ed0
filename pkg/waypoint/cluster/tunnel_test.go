package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// Requests share a stream of a real tunnel; a destination that refuses is told by its
// status.
func TestRequestsThroughATunnel(t *testing.T) {
	a := newAuthority(t)
	const server, client = "spiffe://td/ns/shop/sa/cart", "spiffe://td/ns/shop/sa/waypoint"
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var streams atomic.Int64
	var refuse atomic.Bool
	s, err := hbone.NewServer(hbone.ServerOptions{
		TLS: &tls.Config{Certificates: []tls.Certificate{a.sign(t, server)}, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13},
		Handle: func(r *hbone.Request) {
			if refuse.Load() {
				r.Reject(503)
				return
			}
			streams.Add(1)
			if r.Authority.String() != "10.0.0.7:80" {
				t.Errorf("CONNECT to %s", r.Authority)
			}
			stream, err := r.AcceptStream("")
			if err != nil {
				t.Error(err)
				return
			}
			_ = codec.ServeHTTP1(tunnelStream{stream}, codec.Options{}, func(x codec.Exchange) {
				_ = x.Respond(&message.Response{Status: 200}, true)
			})
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	defer l.Close()
	pool, err := hbone.NewPool(hbone.PoolOptions{
		Dial: func(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
			if to.String() != "10.0.0.7:15008" {
				t.Errorf("dial %s", to)
			}
			c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
			if err != nil {
				return nil, err
			}
			return c.(*net.TCPConn), nil
		},
		TLS: func(k hbone.Key) *tls.Config {
			return &tls.Config{Certificates: []tls.Certificate{a.sign(t, client)}, NextProtos: []string{"h2"}, InsecureSkipVerify: true, VerifyConnection: func(state tls.ConnectionState) error {
				if k.Expected != state.PeerCertificates[0].URIs[0].String() {
					return errors.New("not who was expected")
				}
				return nil
			}}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	m := newManager(t, Options{TrustDomain: "td", Tunnel: Over(pool, mesh.Identity{TrustDomain: "td", Namespace: "shop", ServiceAccount: "waypoint"}, "")})
	c := m.eds(t, internalSocket)
	if err := m.SetEndpoints(parse(t, internal("connect_originate", "10.0.0.7:80", `,"mesh":{"originate":"originate/shop/cart"}`), &endpointv3.ClusterLoadAssignment{})); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		h, err := c.Choose(Choice{})
		if err != nil {
			t.Fatal(err)
		}
		st, err := c.Open(h, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if st.Connected.PeerURISAN != server {
			t.Errorf("%q answers", st.Connected.PeerURISAN)
		}
		if status, err := exchange(st); status != 200 || err != nil {
			t.Error(status, err)
		}
		st.Close()
	}
	if n := streams.Load(); n != 1 {
		t.Errorf("%d streams for 5 requests", n)
	}
	m.Remove("c")
	refuse.Store(true)
	m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{}}},`+internalSocket+`}`)
	var ce *ConnectError
	if _, _, err := do(m.Get("c"), Choice{}, OpenOptions{}); !errors.As(err, &ce) || ce.Status != 503 {
		t.Errorf("%v", err)
	}
	// Somebody else's endpoint.
	if err := m.SetEndpoints(parse(t, internal("connect_originate", "10.0.0.7:80", `,"mesh":{"originate":"originate/shop/other"}`), &endpointv3.ClusterLoadAssignment{})); err != nil {
		t.Fatal(err)
	}
	if _, _, err := do(m.Get("c"), Choice{}, OpenOptions{}); !errors.As(err, &ce) || !errors.Is(err, hbone.ErrTLS) {
		t.Errorf("%v", err)
	}
}
