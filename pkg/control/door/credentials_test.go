package door

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/fairlead-mesh/fairlead/pkg/identity/identitytest"
	"github.com/fairlead-mesh/fairlead/test/condition"
)

// server is one with a door; what its streams do with their turns is do's.
func server(t *testing.T, d *Door, do func(ctx context.Context) error) (address string) {
	t.Helper()
	inner := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{identitytest.SelfSigned()}})
	s := grpc.NewServer(grpc.Creds(d.Credentials(inner)), grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := do(ctx); err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}))
	healthpb.RegisterHealthServer(s, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return l.Addr().String()
}

func call(t *testing.T, address string) error {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))) //nolint:gosec // who answers is not what is tested
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	return err
}

func (d *Door) given() int { return d.queue.Given() }

// The turn of a handshake is that of the connection's first stream; the next waits for
// its own.
func TestFirstStreamHasTheConnectionsTurn(t *testing.T) {
	d := open(t, Options{Turns: 1})
	address := server(t, d, func(ctx context.Context) error {
		turn, err := d.Begin(ctx)
		if err != nil {
			return err
		}
		if d.given() != 1 {
			t.Errorf("%d turns while the only one is had", d.given())
		}
		turn.End()
		if turn, err = d.Begin(ctx); err == nil {
			turn.End()
		}
		return err
	})
	for range 3 {
		if err := call(t, address); err != nil {
			t.Fatal(err)
		}
	}
	if d.given() != 0 {
		t.Error("a turn has not ended")
	}
}

// A call that needs no turn gives that of its connection back.
func TestPass(t *testing.T) {
	d := open(t, Options{Turns: 1})
	address := server(t, d, func(ctx context.Context) error {
		Pass(ctx)
		if d.given() != 0 {
			t.Error("it still has its turn")
		}
		return nil
	})
	if err := call(t, address); err != nil {
		t.Fatal(err)
	}
}

// Who says nothing, and who has gone while it waited, holds nobody up.
func TestSilentAndGonePeers(t *testing.T) {
	d := open(t, Options{Turns: 1})
	address := server(t, d, func(context.Context) error { return nil })
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	silent := dial()
	defer silent.Close()
	condition.Await(t, "it has the turn", func() bool { return d.given() == 1 })
	leaving := dial()
	condition.Await(t, "the other waits", func() bool { return d.Waiting() == 1 })
	leaving.Close()
	if err := call(t, address); err != nil {
		t.Fatal(err)
	}
	condition.Await(t, "all turns have ended", func() bool { return d.given() == 0 && d.Waiting() == 0 })
}
