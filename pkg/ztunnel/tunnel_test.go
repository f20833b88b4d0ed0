package ztunnel

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/hbone"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// shop is a client and a server with a service in front, both captured.
func shop(t *testing.T) (w *world, client, server *testPod, vip netip.AddrPort) {
	t.Helper()
	w = newWorld(t)
	app := w.echo(2, 0)
	key := mesh.ServiceKey{Namespace: "shop", Hostname: "server.shop.svc.cluster.local"}
	vip = netip.AddrPortFrom(w.addr(100), 80)
	svc := &mesh.Service{Key: key, Name: "server", VIPs: []mesh.NetworkAddr{{Addr: vip.Addr()}}, Ports: []mesh.Port{{Service: 80, Target: app.Port()}}}
	backend := w.workload("server", 2)
	backend.Services[key] = []mesh.Port{{Service: 80, Target: app.Port()}}
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("client", 1), backend}, Services: []*mesh.Service{svc}})
	return w, w.start("client", 1), w.start("server", 2), vip
}

func expectReset(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, c); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client saw %v, want a reset", err)
	}
}

func TestServiceThroughTunnel(t *testing.T) {
	w, client, server, vip := shop(t)
	c := client.connect(vip)
	r := bufio.NewReader(c)
	// The server speaks first, and sees the client's own address.
	if greeting, err := r.ReadString('\n'); err != nil || greeting != "you are "+client.addr.String()+"\n" {
		t.Fatalf("greeting %q, %v", greeting, err)
	}
	if live := server.Connections(); len(live) != 1 || live[0].Protocol != "HBONE" || live[0].Source.Addr() != client.addr {
		t.Errorf("the server's live connections: %+v", live)
	}
	if _, err := io.WriteString(c, "hello"); err != nil {
		t.Fatal(err)
	}
	_ = c.CloseWrite() // half-close: what was sent still comes back
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "hello" {
		t.Fatalf("got %q, %v", rest, err)
	}

	out := scrub(w.log("direction=\"outbound\""), w)
	want := `T	info	access	connection complete	src.addr=NET.1:P	src.workload="client"	src.namespace="shop"	src.identity="spiffe://cluster.local/ns/shop/sa/client"	src.cluster="Kubernetes"	` +
		`dst.addr=NET.2:15008	dst.hbone_addr="NET.2:P"	dst.service="server.shop.svc.cluster.local"	dst.workload="server"	dst.namespace="shop"	dst.identity="spiffe://cluster.local/ns/shop/sa/server"	dst.cluster="Kubernetes"	` +
		`direction="outbound"	bytes_sent=5	bytes_recv=LEN	duration="Nms"`
	greeting := len("you are " + client.addr.String() + "\n")
	want = strings.Replace(want, "LEN", itoa(greeting+5), 1)
	if out != want {
		t.Errorf("access record\n%s\nwant\n%s", out, want)
	}
	in := scrub(w.log("direction=\"inbound\""), w)
	want = strings.Replace(want, `direction="outbound"	bytes_sent=5	bytes_recv=`+itoa(greeting+5), `direction="inbound"	bytes_sent=`+itoa(greeting+5)+`	bytes_recv=5`, 1)
	want += `	reason="no allow policy"`
	if in != want {
		t.Errorf("access record\n%s\nwant\n%s", in, want)
	}

	labels := map[string]string{
		"source_workload": "client", "source_principal": "spiffe://cluster.local/ns/shop/sa/client",
		"destination_workload": "server", "destination_principal": "spiffe://cluster.local/ns/shop/sa/server",
		"destination_service": "server.shop.svc.cluster.local", "destination_service_name": "server", "connection_security_policy": "mutual_tls",
		"request_protocol": "tcp", "response_flags": "-", "source_zone": "z1",
	}
	for _, reporter := range []string{"source", "destination"} {
		labels["reporter"] = reporter
		for name, want := range map[string]float64{
			"istio_tcp_connections_opened_total": 1, "istio_tcp_connections_closed_total": 1,
			"istio_tcp_received_bytes_total": 5, "istio_tcp_sent_bytes_total": float64(greeting + 5),
		} {
			if got := w.metric(name, labels); got != want {
				t.Errorf("%s of %s is %v, want %v", name, reporter, got, want)
			}
		}
	}
	eventually(t, "no connection is live", func() bool { return len(client.Connections())+len(server.Connections()) == 0 })
}

var (
	stamps   = regexp.MustCompile(`^\S+`)
	duration = regexp.MustCompile(`duration="\d+ms"`)
	ports    = regexp.MustCompile(`(NET\.\d+):(\d+)`)
)

// scrub leaves out of a record what differs from run to run.
func scrub(line string, w *world) string {
	network := strings.TrimSuffix(w.addr(0).String(), ".0")
	line = stamps.ReplaceAllString(line, "T")
	line = duration.ReplaceAllString(line, `duration="Nms"`)
	line = strings.ReplaceAll(line, network+".", "NET.")
	return ports.ReplaceAllStringFunc(line, func(s string) string {
		if strings.HasSuffix(s, ":15008") {
			return s
		}
		return s[:strings.LastIndex(s, ":")] + ":P"
	})
}

func itoa(n int) string {
	digits := ""
	for ; n > 0; n /= 10 {
		digits = string(rune('0'+n%10)) + digits
	}
	return digits
}

// What fails gives the application a reset, soon, and says why.
func TestFailuresAreResets(t *testing.T) {
	w, client, server, vip := shop(t)
	closed := netip.AddrPortFrom(server.addr, 1) // nobody listens there
	noPort := netip.AddrPortFrom(vip.Addr(), 81)
	empty := &mesh.Service{Key: mesh.ServiceKey{Namespace: "shop", Hostname: "empty"}, VIPs: []mesh.NetworkAddr{{Addr: w.addr(101)}}, Ports: []mesh.Port{{Service: 80, Target: 80}}}
	outside := netip.AddrPortFrom(w.addr(50), 1)
	elsewhere := w.workload("elsewhere", 60)
	elsewhere.Network = "far"
	remote := &mesh.Service{Key: mesh.ServiceKey{Namespace: "shop", Hostname: "remote"}, VIPs: []mesh.NetworkAddr{{Addr: w.addr(102)}}, Ports: []mesh.Port{{Service: 80, Target: 80}}}
	elsewhere.Services[remote.Key] = nil
	bound := w.workload("bound", 61)
	bound.Waypoint = &mesh.GatewayAddr{Service: mesh.ServiceKey{Namespace: "shop", Hostname: "waypoint"}, Port: 15008}
	w.apply(mesh.Delta{Services: []*mesh.Service{empty, remote}, Workloads: []*mesh.Workload{elsewhere, bound}})
	for name, c := range map[string]struct {
		dst  netip.AddrPort
		flag string
		why  string
	}{
		"refused by the application": {closed, `flag="CONNECT"`, "503"},
		"no such port":               {noPort, `flag="CONNECT"`, "no such port"},
		"no endpoint":                {netip.AddrPortFrom(w.addr(101), 80), `flag="CONNECT"`, "no healthy upstream"},
		"outside, refused":           {outside, `flag="CONNECT"`, "connection refused"},
		"another network":            {netip.AddrPortFrom(w.addr(102), 80), `flag="CONNECT"`, "on another network"},
		"waypoint not found":         {netip.AddrPortFrom(w.addr(61), 80), `flag="CONNECT"`, "waypoint cannot be found"},
		"own tunnel port":            {netip.AddrPortFrom(client.addr, 15008), `flag="CONNECT"`, "recursive call"},
		"a capture port of loopback": {netip.AddrPortFrom(server.addr, 15001), `flag="CONNECT"`, "recursive call"},
	} {
		begin := time.Now()
		expectReset(t, client.connect(c.dst))
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: it took %s", name, took)
		}
		w.log(`connection failed`, `direction="outbound"`, c.flag, c.why)
	}
	w.log("connection failed", `direction="inbound"`, "connection refused")
	if got := w.metric("istio_tcp_connections_failed_total", map[string]string{"reporter": "source", "response_flags": "CONNECT"}); got != 8 {
		t.Errorf("%v connections failed at the source, want 8", got)
	}
}

// Another identity at the destination's address is not spoken to.
func TestWhoAnswersMustBeWhoWasMeant(t *testing.T) {
	w, client, _, vip := shop(t)
	impostor := w.workload("server", 2)
	impostor.ServiceAccount = "other"
	impostor.Services = w.store.Snapshot().Workload(impostor.UID).Services
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{impostor}}) // who really runs there is sa/server
	expectReset(t, client.connect(vip))
	w.log("connection failed", `direction="outbound"`, `flag="TLS_FAILURE"`, "not who was expected")
	w.log("connection failed", `direction="inbound"`, `flag="TLS_FAILURE"`)
}

// A destination that becomes another workload ends what was open to the former.
func TestDestinationChangesHands(t *testing.T) {
	w, client, _, vip := shop(t)
	c := client.connect(vip)
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	changed := *w.store.Snapshot().Workload("Kubernetes//Pod/shop/server")
	changed.ServiceAccount = "other"
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{&changed}})
	expectReset(t, c)
	w.log(`direction="outbound"`, "another workload now")
}

func TestPassthrough(t *testing.T) {
	w, client, _, _ := shop(t)
	outside := w.echo(50, 0)
	c := client.connect(outside)
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "you are "+client.addr.String()+"\n" {
		t.Fatalf("got %q, %v", got, err)
	}
	line := w.log("connection complete", `direction="outbound"`)
	if strings.Contains(line, "identity") || strings.Contains(line, "hbone") {
		t.Errorf("no tunnel, and yet: %s", line)
	}
	if got := w.metric("istio_tcp_connections_opened_total", map[string]string{"connection_security_policy": "unknown", "destination_workload": "unknown", "source_workload": "client"}); got != 1 {
		t.Errorf("%v opened", got)
	}
}

// An endpoint known by name only is resolved, and reached plainly.
func TestEndpointByName(t *testing.T) {
	w := newWorld(t)
	app := w.echo(50, 0)
	key := mesh.ServiceKey{Namespace: "shop", Hostname: "example.com"}
	endpoint := &mesh.Workload{UID: "se/1", Name: "se", Namespace: "shop", Hostname: "db.example.com", Healthy: true, Capacity: 1, Services: map[mesh.ServiceKey][]mesh.Port{key: nil}}
	svc := &mesh.Service{Key: key, VIPs: []mesh.NetworkAddr{{Addr: w.addr(100)}}, Ports: []mesh.Port{{Service: 80, Target: app.Port()}}}
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("client", 1), endpoint}, Services: []*mesh.Service{svc}})
	asked := 0
	w.options.Resolve = func(_ context.Context, host string) ([]netip.Addr, error) {
		if asked++; host != "db.example.com" {
			return nil, errors.New("no such host: " + host)
		}
		return []netip.Addr{netip.MustParseAddr("fd00::1"), app.Addr()}, nil
	}
	client := w.start("client", 1)
	for range 2 {
		c := client.connect(netip.AddrPortFrom(w.addr(100), 80))
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(got), "you are") {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	if asked != 1 {
		t.Errorf("resolved %d times", asked)
	}
}

// What a peer may ask of the tunnel's port.
func TestInboundRequests(t *testing.T) {
	w, client, server, vip := shop(t)
	app := w.store.Snapshot().Service(mesh.ServiceKey{Namespace: "shop", Hostname: "server.shop.svc.cluster.local"}).Ports[0].Target
	for authority, want := range map[string]int{
		netip.AddrPortFrom(server.addr, app).String():   200,
		"server.shop.svc.cluster.local:80":              200,
		"server.shop.svc.cluster.local:81":              503,
		"nobody.example:80":                             503,
		netip.AddrPortFrom(client.addr, app).String():   400,
		"127.0.0.1:" + itoa(int(app)):                   400,
		vip.String():                                    400,
		netip.AddrPortFrom(server.addr, 15001).String(): 503,
		netip.AddrPortFrom(server.addr, 15006).String(): 503,
		netip.AddrPortFrom(server.addr, 15008).String(): 503,
		netip.AddrPortFrom(server.addr, 1).String():     503,
	} {
		a, err := hbone.ParseAuthority(authority)
		if err != nil {
			t.Fatal(err)
		}
		got := 200
		s, err := client.pool.Open(t.Context(), hbone.Key{
			Source: client.id, Destination: netip.AddrPortFrom(server.addr, hbone.Port), Expected: server.id.String(),
		}, hbone.Headers{Authority: a})
		var status *hbone.StatusError
		switch {
		case errors.As(err, &status):
			got = status.Status
		case err != nil:
			t.Fatalf("%s: %v", authority, err)
		default:
			s.Abort()
		}
		if got != want {
			t.Errorf("%s is answered %d, want %d", authority, got, want)
		}
	}
	w.log("connection failed", "ip mismatch", `direction="inbound"`)
	w.log("connection failed", "recursive call", `direction="inbound"`)
}

// A plain connection to the tunnel's port, and one with TLS of a stranger.
func TestStrangersAtTheTunnel(t *testing.T) {
	w, _, server, _ := shop(t)
	c, err := net.Dial("tcp", netip.AddrPortFrom(server.addr, hbone.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
	w.log("connection failed", `direction="inbound"`, `flag="TLS_FAILURE"`, "first record does not look like a TLS handshake")
	if got := w.metric("istio_tcp_connections_failed_total", map[string]string{"reporter": "destination", "response_flags": "TLS_FAILURE"}); got != 1 {
		t.Errorf("%v handshakes failed", got)
	}
}

// Without a state nothing passes: connections wait, and go on once there is one.
func TestNoStateYet(t *testing.T) {
	w := newWorld(t)
	outside := w.echo(50, 0)
	ready := make(chan struct{})
	w.options.Ready = ready
	client := w.start("client", 1)
	c := client.connect(outside)
	_ = c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	var timeout net.Error
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Fatalf("without a state: %v", err)
	}
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("client", 1)}})
	close(ready)
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}

// A pod is held to its quota; the place of an ended connection is free again.
func TestQuota(t *testing.T) {
	w, _, _, vip := shop(t)
	o := w.options
	o.MaxConnections = 2
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("greedy", 3)}})
	greedy := w.startWith(o, "greedy", 3, newFakeSockets(t, w.addr(3)))
	open := func() (*net.TCPConn, error) {
		c, err := greedy.tryConnect(vip)
		if err == nil {
			_, err = c.Read(make([]byte, 1))
		}
		return c, err
	}
	first, err := open()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("the third of two: %v", err)
	}
	first.Close()
	eventually(t, "the place is free", func() bool {
		_, err := open()
		return err == nil
	})
}

// Drain lets connections end, takes no new ones, and resets what outlasts it.
func TestDrain(t *testing.T) {
	w, client, server, vip := shop(t)
	c := client.connect(vip)
	r := bufio.NewReader(c)
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	drained := make(chan struct{})
	go func() { client.Drain(ctx); close(drained) }()
	eventually(t, "no new connections", func() bool {
		_, err := dialFrom(t.Context(), client.addr, addrPort(client.sockets.outbound.Addr()))
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if _, err := io.WriteString(c, "still\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); err != nil || got != "still\n" {
		t.Fatalf("while draining: %q, %v", got, err)
	}
	cancel()
	<-drained
	expectReset(t, c)
	w.log(`direction="outbound"`, "the agent stops")
	eventually(t, "the server's side has ended", func() bool { return len(server.Connections()) == 0 })

	// In order: the last connection's end is the drain's.
	w.apply(mesh.Delta{Workloads: []*mesh.Workload{w.workload("second", 4)}})
	second := w.start("second", 4)
	c = second.connect(vip)
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	drained = make(chan struct{})
	go func() { second.Drain(context.Background()); close(drained) }()
	_ = c.CloseWrite()
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	select {
	case <-drained:
	case <-time.After(10 * time.Second):
		stacks := make([]byte, 1<<20)
		t.Fatalf("the drain did not end\n%s", stacks[:runtime.Stack(stacks, true)])
	}
}
