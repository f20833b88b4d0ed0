package push

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// world is the form of the protocol in which a response of clusters or listeners
// is all there are ("state of the world"). It is for a waypoint's own types: what
// one of them costs grows with the waypoint, and what is gone goes with what is
// new, since neither can be told apart here.
type world struct {
	discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer
	// names are those asked for, by type.
	names map[string]map[string]bool
}

func (w world) receive() (*request, error) {
	r, err := w.Recv()
	if err != nil {
		return nil, err
	}
	d := &discovery.DeltaDiscoveryRequest{Node: r.GetNode(), TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetResponseNonce(), ErrorDetail: r.GetErrorDetail()}
	if len(r.GetResourceNames()) > maxNames {
		return nil, errTooManyNames
	}
	before, now := w.names[r.GetTypeUrl()], map[string]bool{}
	for _, name := range r.GetResourceNames() {
		now[name] = true
		if !before[name] {
			d.ResourceNamesSubscribe = append(d.ResourceNamesSubscribe, name)
		}
	}
	for name := range before {
		if !now[name] {
			d.ResourceNamesUnsubscribe = append(d.ResourceNamesUnsubscribe, name)
		}
	}
	if len(now) > 0 || len(before) > 0 {
		w.names[r.GetTypeUrl()] = now
	}
	return &request{DeltaDiscoveryRequest: d}, nil
}

func (w world) send(r *response) error {
	resources := r.diff.resources
	if wildcard(r.typeURL) {
		r.log.mu.RLock()
		resources = r.log.allLocked(r.typeURL).resources
		r.log.mu.RUnlock()
	}
	return w.SendMsg(&whole{r.typeURL, r.nonce, resources})
}

// whole is a DiscoveryResponse.
type whole struct {
	typeURL, nonce string
	resources      []*resource
}

func (w *whole) marshal() mem.BufferSlice {
	parts := make(mem.BufferSlice, 0, 2*len(w.resources)+1)
	for _, r := range w.resources {
		tag := protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.BytesType), uint64(len(r.packed)))
		parts = append(parts, mem.SliceBuffer(tag), mem.SliceBuffer(r.packed))
	}
	own := appendString(nil, 1, w.nonce) // the version: the client gives it back, nobody compares it
	own = appendString(own, 4, w.typeURL)
	own = appendString(own, 5, w.nonce)
	return append(parts, mem.SliceBuffer(own))
}
