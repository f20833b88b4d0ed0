package ca

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	api "istio.io/api/security/v1alpha1"
)

// dial serves s on loopback with messages as large as the control plane's, and connects.
func dial(t *testing.T, s *Service) *grpc.ClientConn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.StaticStreamWindowSize(64<<10), grpc.StaticConnWindowSize(64<<10))
	s.Register(g)
	go func() { _ = g.Serve(listener) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func with(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// The call is the generated client's, whichever way it is served.
func TestTheServedCall(t *testing.T) {
	s, _ := newService(t)
	client := api.NewIstioCertificateServiceClient(dial(t, s))
	response, err := client.CreateCertificate(with(t.Context(), "app"), &api.IstioCertificateRequest{Csr: csr(t, ecKey(t))})
	if err != nil || len(response.GetCertChain()) == 0 {
		t.Fatal(response, err)
	}
	if _, err := client.CreateCertificate(with(t.Context(), "app"), &api.IstioCertificateRequest{Csr: "x"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a request that is none: %v", err)
	}
}

// Nobody without a token makes the server read what it sends: it is answered before the message
// has come, of which there may be tens of megabytes on each of many streams.
func TestNothingIsReadOfWhoProvesNothing(t *testing.T) {
	s, _ := newService(t)
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	stream, err := conn.NewStream(with(ctx, "wrong"), &grpc.StreamDesc{ClientStreams: true}, "/istio.v1.auth.IstioCertificateService/CreateCertificate")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Header(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(&api.IstioCertificateResponse{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a message: %v", err)
	}
}

// A pod's requests that are on their way keep neither its later ones for good nor another's out.
func TestRequestsThatDoNotCome(t *testing.T) {
	s, _ := newService(t)
	conn := dial(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var slow []grpc.ClientStream
	for range 2 * maxSendingOfPod {
		stream, err := conn.NewStream(with(ctx, "app"), &grpc.StreamDesc{ClientStreams: true}, "/istio.v1.auth.IstioCertificateService/CreateCertificate")
		if err != nil {
			t.Fatal(err)
		}
		slow = append(slow, stream)
	}
	client := api.NewIstioCertificateServiceClient(conn)
	for s.sending.Waiting() < maxSendingOfPod {
		if ctx.Err() != nil {
			t.Fatal("the requests are not waited for")
		}
	}
	if n := s.sending.Given(); n > maxSendingOfPod {
		t.Errorf("%d requests of one pod are on their way", n)
	}
	if _, err := client.CreateCertificate(with(ctx, "agent"), &api.IstioCertificateRequest{Csr: csr(t, ecKey(t))}); err != nil {
		t.Errorf("another caller: %v", err)
	}
	for _, stream := range slow {
		if err := stream.RecvMsg(&api.IstioCertificateResponse{}); status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), "did not come") {
			t.Errorf("a request that does not come: %v", err)
		}
	}
	if _, err := client.CreateCertificate(with(ctx, "app"), &api.IstioCertificateRequest{Csr: csr(t, ecKey(t))}); err != nil {
		t.Errorf("the pod itself, later: %v", err)
	}
	if given, waiting := s.sending.Given(), s.sending.Waiting(); given > 0 || waiting > 0 {
		t.Errorf("%d requests are still counted, and %d that wait", given, waiting)
	}
}
