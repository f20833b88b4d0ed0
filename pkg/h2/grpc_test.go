package h2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// numbers is a gRPC service with a method of each shape, whose messages are
// numbers: a sum, a count up, and an echo.
var numbers = grpc.ServiceDesc{
	ServiceName: "test.Numbers", HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Double", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var m wrapperspb.Int64Value
			if err := decode(&m); err != nil {
				return nil, err
			}
			if m.Value < 0 {
				return nil, status.Error(codes.OutOfRange, "negative")
			}
			return wrapperspb.Int64(2 * m.Value), nil
		}},
	},
	Streams: []grpc.StreamDesc{
		{StreamName: "Sum", ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			sum := int64(0)
			for {
				var m wrapperspb.Int64Value
				if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
					return s.SendMsg(wrapperspb.Int64(sum))
				} else if err != nil {
					return err
				}
				sum += m.Value
			}
		}},
		{StreamName: "Count", ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			var m wrapperspb.Int64Value
			if err := s.RecvMsg(&m); err != nil {
				return err
			}
			for i := range m.Value {
				if err := s.SendMsg(wrapperspb.Int64(i)); err != nil {
					return err
				}
			}
			return nil
		}},
		{StreamName: "Echo", ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			for {
				var m wrapperspb.Int64Value
				if err := s.RecvMsg(&m); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(&m); err != nil {
					return err
				}
			}
		}},
	},
}

// forward is a proxy: our server before our client, with everything passed on as it
// comes.
func forward(t testing.TB, upstream string) (address string) {
	t.Helper()
	nc, err := net.Dial("tcp", upstream)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Client(nc, Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	pass := func(from, to *Stream) error {
		for {
			b, err := from.Next()
			if errors.Is(err, io.EOF) {
				return to.Finish(from.Trailers())
			}
			if err != nil {
				return err
			}
			if err := to.Send(b, 0); err != nil {
				return err
			}
		}
	}
	return serve(t, Config{}, func(down *Stream) {
		mode := Mode(0)
		if !down.HasBody() {
			mode = End
		}
		up, err := c.Open(down.Fields(), mode)
		if err != nil {
			down.Reset(CodeRefusedStream)
			return
		}
		defer up.Close()
		if mode == 0 {
			go func() {
				if pass(down, up) != nil {
					up.Reset(CodeCancel)
				}
			}()
		}
		for {
			head, err := up.Head()
			if err != nil {
				var se *StreamError
				if errors.As(err, &se) {
					down.Reset(se.Code)
				}
				return
			}
			mode := Mode(0)
			if head[0].Value[0] != '1' && !up.HasBody() {
				mode = End
			}
			if err := down.Respond(head, mode); err != nil || mode == End {
				return
			}
			if head[0].Value[0] != '1' {
				_ = pass(up, down)
				return
			}
		}
	})
}

// gRPC's own client and server, through our server and our client: every shape of
// call, errors as trailers alone, cancellation and deadlines.
func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&numbers, nil)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(forward(t, l.Addr().String()), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream := func(name string) grpc.ClientStream {
		t.Helper()
		s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Numbers/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	receive := func(s grpc.ClientStream, want int64) {
		t.Helper()
		var m wrapperspb.Int64Value
		if err := s.RecvMsg(&m); err != nil || m.Value != want {
			t.Fatalf("received %d, %v; want %d", m.Value, err, want)
		}
	}
	const many = 5000

	for i := range int64(20) {
		var m wrapperspb.Int64Value
		if err := conn.Invoke(ctx, "/test.Numbers/Double", wrapperspb.Int64(i), &m); err != nil || m.Value != 2*i {
			t.Fatalf("unary: %d, %v", m.Value, err)
		}
	}
	for method, want := range map[string]string{"Double": "OutOfRange negative", "None": "Unimplemented unknown method None for service test.Numbers"} {
		err := conn.Invoke(ctx, "/test.Numbers/"+method, wrapperspb.Int64(-1), &wrapperspb.Int64Value{})
		if got := fmt.Sprint(status.Code(err), " ", status.Convert(err).Message()); got != want {
			t.Errorf("trailers alone: %q, want %q", got, want)
		}
	}

	sum := stream("Sum")
	for i := range int64(many) {
		if err := sum.SendMsg(wrapperspb.Int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	_ = sum.CloseSend()
	receive(sum, many*(many-1)/2)

	count := stream("Count")
	_ = count.SendMsg(wrapperspb.Int64(many))
	_ = count.CloseSend()
	for i := range int64(many) {
		receive(count, i)
	}

	echo := stream("Echo")
	for i := range int64(200) {
		if err := echo.SendMsg(wrapperspb.Int64(i)); err != nil {
			t.Fatal(err)
		}
		receive(echo, i)
	}
	_ = echo.CloseSend()
	if err := echo.RecvMsg(&wrapperspb.Int64Value{}); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}

	short, stop := context.WithTimeout(ctx, 50*time.Millisecond)
	defer stop()
	waiting, err := conn.NewStream(short, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Numbers/Echo")
	if err != nil {
		t.Fatal(err)
	}
	if err := waiting.RecvMsg(&wrapperspb.Int64Value{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a deadline: %v", err)
	}
}
