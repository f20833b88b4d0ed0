package ca

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	api "istio.io/api/security/v1alpha1"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// maxSending and maxSendingOfPod bound the requests that are on their way, in all and
	// of one pod: each may be as large as the server's largest message.
	maxSending, maxSendingOfPod = 64, 2
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

// sender is a pod with requests that are on their way, or wait to be: how many, and room
// for those that may.
type sender struct {
	asking int
	room   chan struct{}
}

// receive is a proven caller's request.
func (s *Service) receive(stream grpc.ServerStream, caller token.Caller) (*api.IstioCertificateRequest, error) {
	late := time.NewTimer(longestRequest)
	defer late.Stop()
	errLate := status.Errorf(codes.DeadlineExceeded, "the request did not come within %s", longestRequest)
	own := s.enter(caller)
	defer s.leave(caller)
	for _, room := range []chan struct{}{own.room, s.room} {
		select {
		case room <- struct{}{}:
			defer func() { <-room }()
		case <-stream.Context().Done():
			return nil, status.FromContextError(stream.Context().Err()).Err()
		case <-late.C:
			return nil, errLate
		}
	}
	r := &api.IstioCertificateRequest{}
	came := make(chan error, 1)
	go func() { came <- stream.RecvMsg(r) }() // ends with the stream
	select {
	case err := <-came:
		return r, err
	case <-late.C:
		return nil, errLate
	}
}

func (s *Service) enter(caller token.Caller) *sender {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.sending[caller.PodUID]
	if own == nil {
		own = &sender{room: make(chan struct{}, maxSendingOfPod)}
		s.sending[caller.PodUID] = own
	}
	own.asking++
	return own
}

func (s *Service) leave(caller token.Caller) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.sending[caller.PodUID]
	if own.asking--; own.asking == 0 {
		delete(s.sending, caller.PodUID)
	}
}
