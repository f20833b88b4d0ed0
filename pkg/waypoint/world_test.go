package waypoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/identity"
	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/message"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/cluster"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/codec"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/hcm"
	"github.com/fairlead-mesh/fairlead/pkg/waypoint/streaminfo"
)

var (
	self   = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "waypoint"}
	caller = mesh.Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "client"}
)

// world is an engine with all that is around it, on loopback: a CA, destinations
// behind ztunnels of their own identities, and who calls.
type world struct {
	t            testing.TB
	engine       *Engine
	clusters     *cluster.Manager
	certificates *identity.Manager
	calls        *hbone.Pool
	version      int

	// answer serves what reaches a destination; nil is what says who was asked.
	answer func(x codec.Exchange, to string)
	// deny refuses connections to endpoints.
	deny atomic.Pointer[error]

	mu         sync.Mutex
	ztunnels   map[string]netip.AddrPort // by identity
	plain      netip.AddrPort
	pools      []*hbone.Pool
	records    []streaminfo.Info
	tcpRecords []streaminfo.Info
	served     map[string]int // requests by destination
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, ztunnels: map[string]netip.AddrPort{}, served: map[string]int{}}
	log := slog.New(slog.DiscardHandler)
	var err error
	check := func() {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	w.certificates, err = identity.NewManager(identity.Options{CA: identitytest.New(), Logger: log})
	check()
	t.Cleanup(w.certificates.Close)
	w.certificates.Acquire(self)
	w.certificates.Acquire(caller)
	w.clusters, err = cluster.NewManager(cluster.Options{
		Dial: w.dial, Tunnel: w.tunnel, TrustDomain: "cluster.local", Logger: log,
		Resolve: func(context.Context, string, cluster.Family) (cluster.Addresses, error) {
			return cluster.Addresses{Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, TTL: time.Hour}, nil
		},
	})
	check()
	w.engine, err = New(Options{
		Clusters: w.clusters, TunnelTLS: w.certificates.ServerTLS(self), Recorders: w, Logger: log,
		Listen: func(string) (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") },
		Authorize: func(*streaminfo.Connection, netip.AddrPort, bool) error {
			if err := w.deny.Load(); err != nil {
				return *err
			}
			return nil
		},
	})
	check()
	w.plain = w.listen(func(c net.Conn) { w.serve(codec.TCPConn{TCPConn: c.(*net.TCPConn)}, "plain") })
	w.calls, err = hbone.NewPool(hbone.PoolOptions{
		Dial: func(ctx context.Context, _ netip.AddrPort) (*net.TCPConn, error) {
			return dialLoopback(ctx, w.engine.Address("connect_terminate").String())
		},
		TLS: func(k hbone.Key) *tls.Config {
			return w.certificates.ClientTLS(k.Source, hbone.SplitExpected(k.Expected))
		},
	})
	check()
	t.Cleanup(func() {
		w.calls.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		w.engine.Drain(ctx, 0)
		w.clusters.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, p := range w.pools {
			p.Close()
		}
	})
	return w
}

func dialLoopback(ctx context.Context, address string) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

func (w *world) listen(serve func(net.Conn)) netip.AddrPort {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dial reaches an endpoint outside the mesh: one for all.
func (w *world) dial(ctx context.Context, _ netip.AddrPort) (codec.Conn, error) {
	c, err := dialLoopback(ctx, w.plain.String())
	if err != nil {
		return nil, err
	}
	return codec.TCPConn{TCPConn: c}, nil
}

// tunnel reaches an endpoint of the mesh through the ztunnel of who is expected there.
func (w *world) tunnel(ctx context.Context, to cluster.Tunnel) (codec.Conn, *tls.ConnectionState, error) {
	pool, err := w.ztunnel(strings.Replace(strings.Replace(to.Expected[0], "local/*", "local/ns/any/sa/any", 1), "*", "any", 1))
	if err != nil {
		return nil, nil, err
	}
	return cluster.Over(pool, self, "")(ctx, to)
}

func (w *world) ztunnel(name string) (*hbone.Pool, error) {
	id, err := mesh.ParseIdentity(name)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	address, ok := w.ztunnels[name]
	if !ok {
		w.certificates.Acquire(id)
		s, err := hbone.NewServer(hbone.ServerOptions{TLS: w.certificates.ServerTLS(id), Logger: slog.New(slog.DiscardHandler), Handle: func(r *hbone.Request) {
			c, err := r.AcceptStream("")
			if err != nil {
				return
			}
			w.serve(c, r.Authority.String())
		}})
		if err != nil {
			return nil, err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		w.t.Cleanup(func() { l.Close() })
		go func() { _ = s.Serve(l) }()
		address = l.Addr().(*net.TCPAddr).AddrPort()
		w.ztunnels[name] = address
	}
	pool, err := hbone.NewPool(hbone.PoolOptions{
		Dial: func(ctx context.Context, _ netip.AddrPort) (*net.TCPConn, error) {
			return dialLoopback(ctx, address.String())
		},
		TLS: func(k hbone.Key) *tls.Config {
			return w.certificates.ClientTLS(k.Source, hbone.SplitExpected(k.Expected))
		},
	})
	if err == nil {
		w.pools = append(w.pools, pool)
	}
	return pool, err
}

// serve answers HTTP of either version with who was asked, and echoes anything else.
func (w *world) serve(c codec.Conn, to string) {
	defer c.Close()
	seen, conn, err := codec.Sniff(c, time.Minute)
	if err != nil {
		c.Abort()
		return
	}
	if seen.Protocol != codec.HTTP1 && seen.Protocol != codec.HTTP2 {
		w.count(to)
		_, _ = io.Copy(conn, conn)
		_ = conn.CloseWrite()
		return
	}
	handler := func(x codec.Exchange) {
		w.count(to)
		if w.answer != nil {
			w.answer(x, to)
			return
		}
		say(x, 200, to)
	}
	if seen.Protocol == codec.HTTP2 {
		_ = codec.ServeHTTP2(conn, codec.Options{}, handler)
		return
	}
	_ = codec.ServeHTTP1(conn, codec.Options{}, handler)
}

// say reads a request to its end and answers it.
func say(x codec.Exchange, status int, body string) {
	for x.HasBody() {
		if _, err := x.Next(); err != nil {
			break
		}
	}
	if err := x.Respond(&message.Response{Status: status, ContentLength: int64(len(body))}, body == ""); err == nil && body != "" {
		_, _ = x.Write([]byte(body))
		_ = x.Finish(nil)
	}
	_ = x.Flush()
}

func (w *world) count(to string) {
	w.mu.Lock()
	w.served[to]++
	w.mu.Unlock()
}

// HTTP implements [Recorders].
func (w *world) HTTP(HTTPLoggers) ([]hcm.Recorder, error) { return []hcm.Recorder{w}, nil }

// TCP implements [Recorders].
func (w *world) TCP(TCPLoggers) ([]hcm.Recorder, error) {
	return []hcm.Recorder{tcpRecorder{w}}, nil
}

type tcpRecorder struct{ w *world }

func (r tcpRecorder) Record(i *streaminfo.Info) {
	r.w.mu.Lock()
	r.w.tcpRecords = append(r.w.tcpRecords, *i)
	r.w.mu.Unlock()
}

func (w *world) tcpCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.tcpRecords)
}

// tcpRecorded waits for the nth record of a TCP connection, from 0.
func (w *world) tcpRecorded(n int) streaminfo.Info {
	w.t.Helper()
	eventually(w.t, "a record of a connection", func() bool { return w.tcpCount() > n })
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tcpRecords[n]
}

// Record implements [hcm.Recorder].
func (w *world) Record(i *streaminfo.Info) {
	kept := streaminfo.Info{
		ResponseCode: i.ResponseCode, Flags: i.Flags, Details: strings.Clone(i.Details), Cluster: i.Cluster, Attempts: i.Attempts, UpstreamHost: i.UpstreamHost,
		Termination: i.Termination, TransportFailure: i.TransportFailure, BytesReceived: i.BytesReceived, BytesSent: i.BytesSent, RouteName: strings.Clone(i.RouteName),
	}
	w.mu.Lock()
	w.records = append(w.records, kept)
	w.mu.Unlock()
}

// recorded waits for the nth record, from 0.
func (w *world) recorded(n int) streaminfo.Info {
	w.t.Helper()
	var out streaminfo.Info
	eventually(w.t, "a record", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.records) <= n {
			return false
		}
		out = w.records[n]
		return true
	})
	return out
}

func (w *world) recordCount() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.records)
}

// apply has the engine take resources of a type, and returns what it refuses.
func (w *world) apply(typeURL string, resources map[string]proto.Message, removed ...string) map[string]error {
	w.t.Helper()
	w.version++
	var updated []*discovery.Resource
	for name, m := range resources {
		a, err := anypb.New(m)
		if err != nil {
			w.t.Fatal(err)
		}
		updated = append(updated, &discovery.Resource{Name: name, Version: fmt.Sprint(w.version), Resource: a})
	}
	return w.engine.ApplyEnvoy(typeURL, updated, removed)
}

// connect opens a connection to a destination as a node's agent does.
func (w *world) connect(to string) (codec.Conn, error) {
	a, err := hbone.ParseAuthority(to)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, err := w.calls.Open(ctx, hbone.Key{Source: caller, Destination: netip.MustParseAddrPort("127.0.0.1:15008"), Expected: self.String()}, hbone.Headers{Authority: a})
	if err != nil {
		return nil, err
	}
	return s.Conn(), nil
}

// exchange sends a request in HTTP/1.1's form and reads the answer.
func exchange(c net.Conn, request string) (*http.Response, string, error) {
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, "", err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return nil, "", err
	}
	method, _, _ := strings.Cut(request, " ")
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return nil, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r, string(body), err
}

// parse reads a resource in protojson; types that are not known here are left empty.
func parse[M proto.Message](t testing.TB, text []byte, m M) M {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(bare(v))
	if err != nil {
		t.Fatal(err)
	}
	if err := (protojson.UnmarshalOptions{Resolver: resolver{}}).Unmarshal(text, m); err != nil {
		t.Fatal(err)
	}
	return m
}

// bare takes the fields of messages away whose types are not known.
func bare(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if url, ok := v["@type"].(string); ok {
			if _, err := protoregistry.GlobalTypes.FindMessageByURL(url); err != nil {
				return map[string]any{"@type": url}
			}
		}
		for k := range v {
			v[k] = bare(v[k])
		}
	case []any:
		for i := range v {
			v[i] = bare(v[i])
		}
	}
	return v
}

// resolver takes what is not known for an empty message.
type resolver struct{}

func (resolver) FindMessageByName(n protoreflect.FullName) (protoreflect.MessageType, error) {
	return protoregistry.GlobalTypes.FindMessageByName(n)
}

func (resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(url)
	if errors.Is(err, protoregistry.NotFound) {
		return (&emptypb.Empty{}).ProtoReflect().Type(), nil
	}
	return t, err
}

func (resolver) FindExtensionByName(n protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByName(n)
}

func (resolver) FindExtensionByNumber(m protoreflect.FullName, n protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return protoregistry.GlobalTypes.FindExtensionByNumber(m, n)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
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
