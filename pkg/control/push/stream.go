package push

import (
	"context"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// stream is a client's connection in one of the protocol's two forms, as the
// delta form has it.
type stream interface {
	Context() context.Context
	receive() (*request, error)
	// send is not called by two at once.
	send(r *response) error
}

// delta is the form in which differences are sent.
type delta struct {
	discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (d delta) receive() (*request, error) {
	r := &request{}
	return r, d.RecvMsg(r)
}

func (d delta) send(r *response) error { return d.SendMsg(r) }
