package cluster

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *authority) sign(t testing.TB, uri string, dns ...string) tls.Certificate {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: dns,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if uri != "" {
		u, _ := url.Parse(uri)
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serveHTTP serves connections that wrap makes, in the version they agree on.
func serveHTTP(t testing.TB, wrap func(net.Conn) (codec.Conn, bool)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	handle := func(x codec.Exchange) {
		_ = x.Respond(&message.Response{Status: 200, ContentLength: 0}, true)
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				c, http2 := wrap(nc)
				if c == nil {
					_ = nc.Close()
				} else if http2 {
					_ = codec.ServeHTTP2(c, codec.Options{}, handle)
				} else {
					_ = codec.ServeHTTP1(c, codec.Options{}, handle)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func plain(http2 bool) func(net.Conn) (codec.Conn, bool) {
	return func(nc net.Conn) (codec.Conn, bool) { return codec.TCPConn{TCPConn: nc.(*net.TCPConn)}, http2 }
}

func secured(config *tls.Config) func(net.Conn) (codec.Conn, bool) {
	return func(nc net.Conn) (codec.Conn, bool) {
		c := tls.Server(nc, config)
		if c.Handshake() != nil {
			return nil, false
		}
		return codec.TLSConn{Conn: c}, c.ConnectionState().NegotiatedProtocol == "h2"
	}
}

func protocolOptions(text string) string {
	return `"typed_extension_protocol_options":{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions":{"@type":"type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",` + text + `}}`
}

const overHTTP2 = `"explicit_http_config":{"http2_protocol_options":{"max_concurrent_streams":10}}`

// Ten streams share a connection.
func TestHTTP2SharesConnections(t *testing.T) {
	m := newManager(t, Options{})
	c := m.eds(t, protocolOptions(overHTTP2), serveHTTP(t, plain(true)))
	var streams []*Stream
	for range 25 {
		h, err := c.Choose(Choice{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.Open(h, OpenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, s)
	}
	if n := c.Stats()["upstream_cx_active"]; n != 3 {
		t.Errorf("%d connections for 25 streams", n)
	}
	for _, s := range streams {
		if status, err := exchange(s); status != 200 || err != nil {
			t.Error(status, err)
		}
		s.Close()
	}
	if got := c.Stats(); got["upstream_cx_http2_total"] != 3 || got["upstream_rq_active"] != 0 {
		t.Error(got)
	}
	if status, _, err := do(c, Choice{}, OpenOptions{}); status != 200 || err != nil {
		t.Error(status, err)
	}
}

func TestVersionFollowsTheClient(t *testing.T) {
	m := newManager(t, Options{})
	options := protocolOptions(`"use_downstream_protocol_config":{"http_protocol_options":{},"http2_protocol_options":{}}`)
	for version, http2 := range map[message.Version]bool{message.HTTP11: false, message.HTTP2: true} {
		c := m.eds(t, options, serveHTTP(t, plain(http2)))
		if status, _, err := do(c, Choice{}, OpenOptions{Downstream: version}); status != 200 || err != nil {
			t.Error(version, status, err)
		}
	}
}

// tlsSocket is a transport socket in protojson.
func tlsSocket(a *authority, more, validation string) string {
	ca, _ := json.Marshal(a.pem)
	return `"transport_socket":{"name":"tls","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"` + more +
		`,"common_tls_context":{"validation_context":{"trusted_ca":{"inline_string":` + string(ca) + `}` + validation + `}}}}`
}

func TestTLSChecksWhoAnswers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	server := serveHTTP(t, secured(&tls.Config{Certificates: []tls.Certificate{a.sign(t, "spiffe://td/ns/a/sa/b", "one.example.com", "*.wild.example.com")}}))
	typed := func(kind, matcher string) string {
		return `,"match_typed_subject_alt_names":[{"san_type":"` + kind + `","matcher":` + matcher + `}]`
	}
	cases := []struct {
		name, socket string
		good         bool
	}{
		{"no names", tlsSocket(a, "", ""), true},
		{"other roots", tlsSocket(other, "", ""), false},
		{"URI", tlsSocket(a, "", typed("URI", `{"exact":"spiffe://td/ns/a/sa/b"}`)), true},
		{"other URI", tlsSocket(a, "", typed("URI", `{"exact":"spiffe://td/ns/a/sa/c"}`)), false},
		{"URI prefix", tlsSocket(a, "", typed("URI", `{"prefix":"spiffe://td/"}`)), true},
		{"URI as DNS", tlsSocket(a, "", typed("DNS", `{"prefix":"spiffe://td/"}`)), false},
		{"DNS suffix", tlsSocket(a, "", typed("DNS", `{"suffix":".example.com"}`)), true},
		{"wildcard", tlsSocket(a, "", typed("DNS", `{"exact":"x.wild.example.com"}`)), true},
		{"deep wildcard", tlsSocket(a, "", typed("DNS", `{"exact":"x.y.wild.example.com"}`)), false},
		{"untyped", tlsSocket(a, "", `,"match_subject_alt_names":[{"exact":"one.example.com"}]`), true},
		{"SNI", tlsSocket(a, `,"sni":"one.example.com","auto_sni_san_validation":true`, ""), true},
		{"other SNI", tlsSocket(a, `,"sni":"two.example.com","auto_sni_san_validation":true`, ""), false},
	}
	for _, one := range cases {
		t.Run(one.name, func(t *testing.T) {
			m := newManager(t, Options{})
			c := m.eds(t, one.socket, server)
			status, _, err := do(c, Choice{}, OpenOptions{})
			var ce *ConnectError
			if one.good && (status != 200 || err != nil) || !one.good && !errors.As(err, &ce) {
				t.Error(status, err)
			}
		})
	}
}

// The version is what the handshake agrees on, also when the first guess was wrong.
func TestVersionByALPN(t *testing.T) {
	a := newAuthority(t)
	for _, alpn := range []string{"h2", "http/1.1"} {
		m := newManager(t, Options{})
		server := serveHTTP(t, secured(&tls.Config{NextProtos: []string{alpn}, Certificates: []tls.Certificate{a.sign(t, "", "x")}}))
		c := m.eds(t, tlsSocket(a, "", "")+","+protocolOptions(`"auto_config":{}`), server)
		for range 3 {
			if status, _, err := do(c, Choice{}, OpenOptions{}); status != 200 || err != nil {
				t.Fatal(alpn, status, err)
			}
		}
		if s := c.Stats(); s["upstream_cx_total"] != 1 || s["upstream_cx_http2_total"] == 1 != (alpn == "h2") || s["upstream_cx_active"] != 1 {
			t.Error(alpn, s)
		}
		if n := c.breakers[0].connections.Load(); n != 1 {
			t.Errorf("%d connections are counted", n)
		}
	}
}

// What cannot be enforced fails the cluster.
func TestTLSFailsClosed(t *testing.T) {
	a := newAuthority(t)
	m := newManager(t, Options{})
	for socket, want := range map[string]string{
		tlsSocket(a, "", `,"crl":{"inline_string":"x"}`):                                                 "crl is not supported",
		tlsSocket(a, "", `,"verify_certificate_spki":["x"]`):                                             "verify_certificate_spki",
		tlsSocket(a, `,"allow_renegotiation":true`, ""):                                                  "allow_renegotiation",
		tlsSocket(a, "", `,"trust_chain_verification":"ACCEPT_UNTRUSTED"`):                               "ACCEPT_UNTRUSTED",
		tlsSocket(a, "", `,"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"exact":""}}]`): "empty",
	} {
		err := m.SetCluster(parse(t, `{"name":"x","type":"EDS",`+socket+`}`, &clusterv3.Cluster{}))
		wantError(t, err, want)
		wantError(t, err, "cluster x: transport_socket")
	}
	if m.Get("x") != nil {
		t.Error("the cluster is there")
	}
}

func TestProxyProtocol(t *testing.T) {
	lines := make(chan []byte, 4)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b, _ := io.ReadAll(io.LimitReader(bufio.NewReader(c), 28))
			lines <- b
			_ = c.Close()
		}
	}()
	m := newManager(t, Options{})
	o := OpenOptions{Source: netip.MustParseAddrPort("10.1.2.3:4567"), Destination: netip.MustParseAddrPort("10.9.9.9:80")}
	for version, want := range map[string]string{"V1": "PROXY TCP4 10.1.2.3 10.9.9.9", "V2": signature + "\x21\x11\x00\x0c\x0a\x01\x02\x03\x0a\x09\x09\x09\x11\xd7\x00\x50"} {
		c := m.eds(t, `"transport_socket":{"name":"p","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
			"config":{"version":"`+version+`"},"transport_socket":{"name":"raw","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}`, l.Addr().String())
		h, _ := c.Choose(Choice{})
		conn, _, err := c.OpenTCP(h, o)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write(make([]byte, 28))
		if got := string(<-lines); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q", version, got)
		}
		_ = conn.Close()
		if n := c.Stats()["upstream_cx_active"]; n != 0 {
			t.Errorf("%d are counted", n)
		}
	}
}

const internalSocket = `"transport_socket":{"name":"internal_upstream","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
	"transport_socket":{"name":"raw_buffer","typed_config":{"@type":"type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}}`

func internal(listener, id, more string) string {
	return `{"cluster_name":"c","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"envoy_internal_address":{"server_listener_name":"` + listener + `","endpoint_id":"` + id + `"}}},
		"metadata":{"filter_metadata":{"envoy.filters.listener.original_dst":{"local":"` + id + `"}` + more + `}}}]}]}`
}

// Endpoints behind connect_originate are reached through a tunnel, whose other end
// must be who the workload, the endpoint or the tunnels' cluster says.
func TestTunnels(t *testing.T) {
	server := newServer(t)
	var asked []Tunnel
	known := map[string][]string{}
	var refuse error
	m := newManager(t, Options{TrustDomain: "td",
		Expected: func(a netip.AddrPort) []string { return known[a.String()] },
		Tunnel: func(ctx context.Context, to Tunnel) (codec.Conn, *tls.ConnectionState, error) {
			asked = append(asked, to)
			if refuse != nil {
				return nil, nil, refuse
			}
			c, err := dialTCP(ctx, netip.MustParseAddrPort(server.addr))
			return c, nil, err
		}})
	c := m.eds(t, internalSocket)
	try := func(assignment, expected string) error {
		t.Helper()
		asked = nil
		if err := m.SetEndpoints(parse(t, assignment, &endpointv3.ClusterLoadAssignment{})); err != nil {
			return err
		}
		m.Remove("c") // no connection is reused
		m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{}}},`+internalSocket+`}`)
		c = m.Get("c")
		_, h, err := do(c, Choice{}, OpenOptions{})
		if err != nil {
			return err
		}
		if len(asked) != 1 || asked[0].Socket.String() != "10.0.0.7:15008" || asked[0].Authority.String() != "10.0.0.7:80" ||
			strings.Join(asked[0].Expected, ",") != expected || h.Address != "envoy://connect_originate/10.0.0.7:80" {
			t.Errorf("%s: %+v", h.Address, asked)
		}
		return nil
	}
	wantError(t, try(internal("connect_originate", "10.0.0.7:80", ""), ""), "nothing says who may answer")
	m.set(t, `{"name":"connect_originate","type":"ORIGINAL_DST","lb_policy":"CLUSTER_PROVIDED","transport_socket":{"name":"tls","typed_config":{
		"@type":"type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext","common_tls_context":{"combined_validation_context":{
		"default_validation_context":{"match_typed_subject_alt_names":[{"san_type":"URI","matcher":{"prefix":"spiffe://td/"}}]},
		"validation_context_sds_secret_config":{"name":"ROOTCA","sds_config":{"ads":{}}}}}}}}`)
	if err := try(internal("connect_originate", "10.0.0.7:80", ""), "spiffe://td/*"); err != nil {
		t.Error(err)
	}
	own := internal("connect_originate", "10.0.0.7:80", `,"mesh":{"originate":"originate/shop/cart"}`)
	if err := try(own, "spiffe://td/ns/shop/sa/cart"); err != nil {
		t.Error(err)
	}
	known["10.0.0.7:80"] = []string{"spiffe://td/ns/shop/sa/other"}
	if err := try(own, "spiffe://td/ns/shop/sa/other"); err != nil {
		t.Error(err)
	}
	refuse = fmt.Errorf("open: %w", &hbone.StatusError{Status: 503})
	var ce *ConnectError
	if err := try(own, ""); !errors.As(err, &ce) || ce.Status != 503 {
		t.Errorf("%v", err)
	}
	wantError(t, try(internal("inner_connect_originate", "10.0.0.7:80", ""), ""), "tunnels in tunnels")
	wantError(t, try(internal("elsewhere", "10.0.0.7:80", ""), ""), `internal listener "elsewhere"`)
}

// encap leads to where the client wanted to go.
func TestDestinationsOfTheClient(t *testing.T) {
	m := newManager(t, Options{})
	encap := m.set(t, `{"name":"encap","type":"STATIC","load_assignment":{"cluster_name":"encap","endpoints":[{"lb_endpoints":[{"endpoint":{"address":{"envoy_internal_address":{"server_listener_name":"connect_originate"}}}}]}]},`+internalSocket+`}`)
	to := netip.MustParseAddrPort("10.0.0.9:8080")
	h, err := encap.Choose(Choice{Destination: to})
	if err != nil || h.Address != "envoy://connect_originate/10.0.0.9:8080" || h.Dial != to || h.tunnel.listener == "" {
		t.Error(h, err)
	}
	if again, _ := encap.Choose(Choice{Destination: to}); again != h {
		t.Error("another host for the same destination")
	}
	if _, err := encap.Choose(Choice{}); !errors.Is(err, ErrNoHost) {
		t.Error(err)
	}
	original := m.set(t, `{"name":"o","type":"ORIGINAL_DST","lb_policy":"CLUSTER_PROVIDED","original_dst_lb_config":{"upstream_port_override":9}}`)
	if h, err := original.Choose(Choice{Destination: to}); err != nil || h.Address != "10.0.0.9:9" {
		t.Error(h, err)
	}
}
