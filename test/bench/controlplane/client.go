package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/identity"
)

const (
	addressType       = "type.googleapis.com/istio.workload.Address"
	authorizationType = "type.googleapis.com/istio.security.Authorization"
	method            = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	serverName        = "istiod.istio-system.svc"
)

// raw is a message that is not decoded: the load must not cost more than what it loads.
type raw struct{ data []byte }

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(*raw).data)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	v.(*raw).data = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = rawCodec{}

// agent is who a client is.
type agent struct {
	node, pod, tokenFile string
	ip                   net.IP
}

// client is one agent's stream.
type client struct {
	agent
	conn *grpc.ClientConn
	// held are the resources that it has, by type: initial_resource_versions as they are
	// sent. Clients that hold the same share them, and count is how many they are.
	held  map[string][]byte
	count int

	stream grpc.ClientStream
	cancel context.CancelFunc
}

// newClient connects as an agent does, from an address of the agent's own: who asks is
// told apart by it.
func newClient(a agent, address, roots string) (*client, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: a.ip}}
	redial := backoff.DefaultConfig
	redial.BaseDelay = 100 * time.Millisecond
	redial.MaxDelay = 15 * time.Second
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(credentials.NewTLS(identity.ControlPlaneTLS(roots, serverName))),
		grpc.WithPerRPCCredentials(identity.Token{File: a.tokenFile, Cluster: "Kubernetes"}),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", to) }),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: 20 * time.Second}),
		grpc.WithWriteBufferSize(4<<10),
	)
	if err != nil {
		return nil, err
	}
	return &client{agent: a, conn: conn, held: map[string][]byte{}}, nil
}

// open opens the stream and asks for everything that it does not hold.
func (c *client) open(ctx context.Context) error {
	ctx, c.cancel = context.WithCancel(ctx)
	var err error
	if c.stream, err = c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method, grpc.ForceCodecV2(rawCodec{}), grpc.MaxCallRecvMsgSize(64<<20)); err != nil {
		return err
	}
	metadata, err := structpb.NewStruct(map[string]any{"NODE_NAME": c.node})
	if err != nil {
		return err
	}
	node := &core.Node{Id: "ztunnel~10.0.0.1~" + c.pod + ".istio-system~istio-system.svc.cluster.local", Metadata: metadata}
	for _, typeURL := range []string{authorizationType, addressType} {
		b, err := proto.Marshal(&discovery.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: []string{"*"}})
		if err != nil {
			return err
		}
		node = nil
		if err := c.stream.SendMsg(&raw{slices.Concat(b, c.held[typeURL])}); err != nil {
			return c.reason(err)
		}
	}
	return nil
}

// reason is why a stream ended, where sending says only that it did.
func (c *client) reason(err error) error {
	if received := c.stream.RecvMsg(&raw{}); received != nil {
		return received
	}
	return err
}

func (c *client) close() {
	if c.cancel != nil {
		c.cancel()
	}
}

// response is one that came.
type response struct {
	typeURL, nonce string
	resources      int
	data           []byte
}

// receive waits for a response, of which it reads as much as an ACK needs.
func (c *client) receive() (response, error) {
	var m raw
	if err := c.stream.RecvMsg(&m); err != nil {
		return response{}, err
	}
	r := response{data: m.data}
	for b := m.data; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return r, errors.New("this is no response")
		}
		b = b[n:]
		value, n := protowire.ConsumeBytes(b)
		if kind != protowire.BytesType || n < 0 {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return r, errors.New("this is no response")
			}
			b = b[n:]
			continue
		}
		b = b[n:]
		switch number {
		case 2:
			r.resources++
		case 4:
			r.typeURL = string(value)
		case 5:
			r.nonce = string(value)
		}
	}
	return r, nil
}

// acknowledge says that a response was taken.
func (c *client) acknowledge(r response) error {
	var b []byte
	b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), r.typeURL)
	b = protowire.AppendString(protowire.AppendTag(b, 6, protowire.BytesType), r.nonce)
	return c.stream.SendMsg(&raw{b})
}

// keep notes what a response brought.
func (c *client) keep(r response) error {
	var m discovery.DeltaDiscoveryResponse
	if err := proto.Unmarshal(r.data, &m); err != nil {
		return err
	}
	for _, one := range m.Resources {
		entry := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), one.Name)
		entry = protowire.AppendString(protowire.AppendTag(entry, 2, protowire.BytesType), one.Version)
		c.held[r.typeURL] = protowire.AppendBytes(protowire.AppendTag(c.held[r.typeURL], 5, protowire.BytesType), entry)
	}
	if r.typeURL == addressType {
		c.count = len(m.Resources)
	}
	return nil
}

// sync opens the stream, again and again as an agent does, until both types came. It
// tells how many resources came.
func (c *client) sync(ctx context.Context, keep bool) (resources int, err error) {
	wait := 10 * time.Millisecond
	for {
		if resources, err = c.syncOnce(ctx, keep); err == nil {
			return resources, nil
		}
		c.close()
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%w; the last answer: %w", ctx.Err(), err)
		case <-time.After(wait/2 + wait*time.Duration(time.Now().UnixNano()%100)/100):
		}
		wait = min(2*wait, 15*time.Second)
		retries.note(err)
	}
}

// failures counts streams that did not get what they asked for, by why.
type failures struct {
	mu sync.Mutex
	by map[string]int
}

var retries = &failures{by: map[string]int{}}

func (f *failures) note(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	said := status.Convert(err)
	text := said.Message() // without addresses, which all differ
	if i := strings.IndexAny(text, "0123456789"); i >= 0 {
		text = text[:i]
	}
	f.by[said.Code().String()+": "+text]++
}

// take is what was counted since the last time.
func (f *failures) take() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	by := f.by
	f.by = map[string]int{}
	return by
}

func (c *client) syncOnce(ctx context.Context, keep bool) (resources int, err error) {
	if err := c.open(ctx); err != nil {
		return 0, err
	}
	for missing := map[string]bool{addressType: true, authorizationType: true}; len(missing) > 0; {
		r, err := c.receive()
		if err != nil {
			return 0, err
		}
		if keep {
			if err := c.keep(r); err != nil {
				return 0, err
			}
		}
		if err := c.acknowledge(r); err != nil {
			return 0, err
		}
		delete(missing, r.typeURL)
		resources += r.resources
	}
	return resources, nil
}
