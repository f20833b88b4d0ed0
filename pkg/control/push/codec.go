package push

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that is wrapped
	"google.golang.org/grpc/mem"
)

// response is a DeltaDiscoveryResponse whose resources were marshalled before
// and are shared by all clients.
type response struct {
	typeURL, nonce string
	diff           *difference
	log            *Log
}

// codec writes responses from their parts, reads requests as far as they must be, and
// leaves everything else to proto.
type codec struct{ encoding.CodecV2 }

// Codec is the codec that the gRPC server must be made with
// (grpc.ForceServerCodecV2).
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if w, ok := v.(*whole); ok {
		return w.marshal(), nil
	}
	r, ok := v.(*response)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	shared, _ := r.diff.encoded()
	parts := make(mem.BufferSlice, 0, len(shared)+1)
	parts = append(parts, shared...)
	own := make([]byte, 0, len(r.typeURL)+len(r.nonce)+8)
	own = appendString(own, 4, r.typeURL)
	own = appendString(own, 5, r.nonce)
	return append(parts, mem.SliceBuffer(own)), nil
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if r, ok := v.(*request); ok {
		return r.decode(data.Materialize())
	}
	return c.CodecV2.Unmarshal(data, v)
}
