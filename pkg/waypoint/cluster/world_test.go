package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
)

// parse reads a message in protojson.
func parse[M proto.Message](t testing.TB, text string, m M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return m
}

func dialTCP(ctx context.Context, to netip.AddrPort) (codec.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return codec.TCPConn{TCPConn: c.(*net.TCPConn)}, nil
}

func newManager(t testing.TB, o Options) *Manager {
	t.Helper()
	if o.Dial == nil {
		o.Dial = dialTCP
	}
	o.Logger = slog.New(slog.DiscardHandler)
	m, err := NewManager(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// set adds a cluster in protojson.
func (m *Manager) set(t testing.TB, text string) *Cluster {
	t.Helper()
	p := parse(t, text, &clusterv3.Cluster{})
	if err := m.SetCluster(p); err != nil {
		t.Fatal(err)
	}
	return m.Get(p.GetName())
}

// assignment is hosts at priority 0 of one locality.
func assignment(name string, addresses ...string) *endpointv3.ClusterLoadAssignment {
	l := &endpointv3.LocalityLbEndpoints{}
	for _, a := range addresses {
		l.LbEndpoints = append(l.LbEndpoints, endpoint(a))
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{l}}
}

func endpoint(address string) *endpointv3.LbEndpoint {
	at := netip.MustParseAddrPort(address)
	return &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: at.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(at.Port())}}}}}}}
}

// edsCluster is an EDS cluster with more fields in protojson, and hosts.
func (m *Manager) eds(t testing.TB, fields string, addresses ...string) *Cluster {
	t.Helper()
	if fields != "" {
		fields = "," + fields
	}
	m.set(t, `{"name":"c","type":"EDS","eds_cluster_config":{"eds_config":{"ads":{}}}`+fields+`}`)
	if err := m.SetEndpoints(assignment("c", addresses...)); err != nil {
		t.Fatal(err)
	}
	return m.Get("c")
}

// server answers HTTP/1.1; status and hold say how.
type server struct {
	addr        string
	listener    net.Listener
	connections atomic.Int64 // that came
	open        atomic.Int64
	inFlight    atomic.Int64
	most        atomic.Int64
	requests    atomic.Int64
	status      atomic.Int64
	hold        chan struct{} // or nil: each answer takes one
}

func newServer(t testing.TB) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: l.Addr().String(), listener: l}
	s.status.Store(200)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			s.open.Add(1)
			go s.serve(c)
		}
	}()
	return s
}

func (s *server) serve(c net.Conn) {
	defer s.open.Add(-1)
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		s.requests.Add(1)
		n := s.inFlight.Add(1)
		for old := s.most.Load(); n > old && !s.most.CompareAndSwap(old, n); old = s.most.Load() {
		}
		if s.hold != nil {
			<-s.hold
		}
		s.inFlight.Add(-1)
		if _, err := fmt.Fprintf(c, "HTTP/1.1 %d X\r\ncontent-length: 2\r\n\r\nok", s.status.Load()); err != nil {
			return
		}
	}
}

// do is one exchange, reported.
func do(c *Cluster, o Choice, open OpenOptions) (status int, h *Host, err error) {
	h, err = c.Choose(o)
	if err != nil {
		return 0, nil, err
	}
	s, err := c.Open(h, open)
	if err != nil {
		h.Report(ConnectFailed, 0)
		return 0, h, err
	}
	defer s.Close()
	status, err = exchange(s)
	if err == nil {
		h.Report(Responded, status)
	}
	return status, h, err
}

var get = message.Request{Method: "GET", Scheme: "http", Authority: "c", Path: "/"}

func exchange(s *Stream) (int, error) {
	if err := s.Send(&get, true); err != nil {
		return 0, err
	}
	_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
	r, err := s.Response()
	if err != nil {
		return 0, err
	}
	status := r.Status
	for s.HasBody() {
		if _, err := s.Next(); err == io.EOF {
			break
		} else if err != nil {
			return 0, err
		}
	}
	return status, nil
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("never: " + what)
		}
	}
}

func port(n int) string { return "10.0.0." + strconv.Itoa(n) + ":80" }
