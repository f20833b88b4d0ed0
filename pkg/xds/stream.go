package xds

import (
	"context"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
)

// conversation is one stream, of one goroutine.
type conversation struct {
	client *Client
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	// asked are the names that this stream asked for, by type.
	asked map[string]map[string]bool
	// wanted is which of the client's wishes they are of.
	wanted map[string]uint64
	node   bool // told already
}

// stream connects and converses until the stream ends.
func (c *Client) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(c.o.Conn).DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(MaxMessage))
	if err != nil {
		return err
	}
	talk := &conversation{client: c, stream: stream, asked: map[string]map[string]bool{}, wanted: map[string]uint64{}}
	for _, t := range c.order {
		if c.isNamed(t) {
			err = talk.ask(t)
		} else {
			err = talk.send(&discovery.DeltaDiscoveryRequest{TypeUrl: t, InitialResourceVersions: c.held(t)})
		}
		if err != nil {
			return err
		}
	}
	responses, ended := make(chan *discovery.DeltaDiscoveryResponse), make(chan error, 1)
	go func() { // ends with the stream, which ends when this function returns
		for {
			r, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case responses <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		var answer *discovery.DeltaDiscoveryRequest // or nil: nothing to answer
		select {
		case r := <-responses:
			c.setState(true, nil)
			answer = c.take(r)
		case <-c.wanted:
		case err := <-ended:
			return err
		}
		// What a cluster or a listener names is asked for before it is acknowledged:
		// the server then knows that it is still needed.
		for _, t := range c.order {
			if !c.isNamed(t) {
				continue
			}
			if err := talk.ask(t); err != nil {
				return err
			}
		}
		if answer == nil {
			continue
		}
		if err := talk.send(answer); err != nil {
			return err
		}
	}
}

func (t *conversation) send(r *discovery.DeltaDiscoveryRequest) error {
	if !t.node {
		r.Node, t.node = t.client.node, true
	}
	return t.stream.Send(r)
}

// ask makes the names that the stream asked for those that are wanted.
func (t *conversation) ask(typeURL string) error {
	asked, r := t.asked[typeURL], &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL}
	c := t.client
	c.mu.Lock()
	sub := c.types[typeURL]
	if asked != nil && t.wanted[typeURL] == sub.wishes { // as after most changes
		c.mu.Unlock()
		return nil
	}
	t.wanted[typeURL] = sub.wishes
	for name := range sub.names {
		if asked[name] {
			continue
		}
		r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, name)
		if version, ok := sub.versions[name]; ok && asked == nil { // the stream's first request
			if r.InitialResourceVersions == nil {
				r.InitialResourceVersions = map[string]string{}
			}
			r.InitialResourceVersions[name] = version
		}
	}
	for name := range asked {
		if !sub.names[name] {
			r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, name)
			delete(asked, name)
		}
	}
	c.mu.Unlock()
	if len(r.ResourceNamesSubscribe)+len(r.ResourceNamesUnsubscribe) == 0 {
		return nil
	}
	if asked == nil {
		asked = map[string]bool{}
		t.asked[typeURL] = asked
	}
	for _, name := range r.ResourceNamesSubscribe {
		asked[name] = true
	}
	return t.send(r)
}

func (c *Client) isNamed(typeURL string) bool { return typeURL == EndpointType || typeURL == RouteType }
