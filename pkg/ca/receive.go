package ca

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
	"github.com/fairlead-mesh/fairlead/pkg/turns"
)

const (
	// maxSending and maxSendingOfPod bound the requests that are on their way, in all and
	// of one pod: each may be as large as the server's largest message.
	maxSending, maxSendingOfPod = 64, 2
	// maxWaiting and maxWaitingOfPod bound those that wait to be: a node's agent asks for
	// each of its pods.
	maxWaiting, maxWaitingOfPod = 16 << 10, 1 << 10
	// longestRequest bounds how long one may be on its way: they are some hundred bytes.
	longestRequest = 5 * time.Second
)

// served is istio.v1.auth.IstioCertificateService with its call as a stream of one message
// each way, which is the same on the wire. Of a unary call gRPC reads the message, as large
// as any, before the handler is asked: who has proved nothing would fill the memory.
var served = grpc.ServiceDesc{
	ServiceName: api.IstioCertificateService_ServiceDesc.ServiceName,
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{StreamName: "CreateCertificate", Handler: func(service any, stream grpc.ServerStream) error {
		s, _ := service.(*Service)
		response, err := s.answer(stream.Context(), func(caller token.Caller) (*api.IstioCertificateRequest, error) { return s.receive(stream, caller) })
		if err != nil {
			return err
		}
		return stream.SendMsg(response)
	}}},
	Metadata: api.IstioCertificateService_ServiceDesc.Metadata,
}

// receive is a proven caller's request.
func (s *Service) receive(stream grpc.ServerStream, caller token.Caller) (*api.IstioCertificateRequest, error) {
	ctx, cancel := context.WithTimeout(stream.Context(), longestRequest)
	defer cancel()
	turn, err := s.sending.Take(ctx, caller.PodUID)
	switch {
	case errors.Is(err, turns.ErrFull):
		return nil, status.Error(codes.ResourceExhausted, "too many requests of this pod, or of all, are waiting to be sent: try again")
	case err != nil:
		return nil, ended(stream.Context())
	}
	defer turn.End()
	r := &api.IstioCertificateRequest{}
	came := make(chan error, 1)
	go func() { came <- stream.RecvMsg(r) }() // ends with the stream
	select {
	case err := <-came:
		return r, err
	case <-ctx.Done():
		return nil, ended(stream.Context())
	}
}

// ended says why a request was not waited for any longer: its stream has ended, or it is late.
func ended(stream context.Context) error {
	if err := stream.Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return status.Errorf(codes.DeadlineExceeded, "the request did not come within %s", longestRequest)
}
