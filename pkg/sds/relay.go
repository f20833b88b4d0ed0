package sds

import (
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that is wrapped
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// maxMessage bounds one relayed message, in bytes.
const maxMessage = 200 << 20

// frame is a message that is passed on as it is. Its owner frees it.
type frame struct{ data mem.BufferSlice }

// codec passes frames on and leaves everything else to proto.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return f.data, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		data.Ref()
		f.data = data
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// discoveryService relays both forms of Envoy's aggregated discovery.
var discoveryService = grpc.ServiceDesc{
	ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{
		{StreamName: "DeltaAggregatedResources", Handler: relay, ServerStreams: true, ClientStreams: true},
		{StreamName: "StreamAggregatedResources", Handler: relay, ServerStreams: true, ClientStreams: true},
	},
}

// relay carries one stream to the control plane and back, with the credentials of
// that connection, until either end ends it.
func relay(server any, down grpc.ServerStream) error {
	method, ok := grpc.MethodFromServerStream(down)
	if !ok {
		return status.Error(codes.Internal, "a stream without a method")
	}
	up, err := server.(*Server).o.ControlPlane.NewStream(down.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method,
		grpc.ForceCodecV2(newCodec()), grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() { // ends with the stream
		for {
			var f frame
			if err := down.RecvMsg(&f); err != nil {
				if err == io.EOF { //nolint:errorlint // gRPC returns it as it is
					err = up.CloseSend()
				}
				sent <- err
				return
			}
			if err := up.SendMsg(&f); err != nil {
				sent <- nil // why is what receiving tells
				return
			}
		}
	}()
	for {
		var f frame
		if err := up.RecvMsg(&f); err != nil {
			select {
			case failed := <-sent:
				if failed != nil {
					return failed
				}
			default:
			}
			if err == io.EOF { //nolint:errorlint // gRPC returns it as it is
				return nil
			}
			return err
		}
		if err := down.SendMsg(&f); err != nil {
			return err
		}
	}
}
