package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// MaxMessage bounds one response, in bytes.
const MaxMessage = 200 << 20

const minBackoff, maxBackoff = 10 * time.Millisecond, 15 * time.Second

// Applier takes what arrives. Apply is called by one goroutine at a time.
type Applier interface {
	Apply(delta mesh.Delta) error
	// HasPolicy says whether any form of a policy is held. Where a policy cannot
	// be read, an earlier form stays; without one a stand-in is applied that denies.
	HasPolicy(key string) bool
}

// Versions is what was known when the client starts: resource versions by type
// and name. They are told to the server, which then sends only what differs.
type Versions map[string]map[string]string

// Options of a [Client].
type Options struct {
	// Conn carries the credentials. It must be non-nil.
	Conn    grpc.ClientConnInterface
	Applier Applier // must be non-nil
	// Envoy takes a waypoint's own resources; nil asks for none.
	Envoy EnvoyApplier
	// NodeID is "<role>~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local", with
	// ztunnel or waypoint for a role.
	NodeID string
	// Metadata is what else the node says of itself: values of JSON. [Waypoint]
	// makes both for a waypoint.
	Metadata map[string]any
	// Synced, if set, is called once for each type, when its first response has
	// been applied.
	Synced func(typeURL string)
	// Known is what the Applier holds already.
	Known  Versions
	Logger *slog.Logger // must be non-nil
}

// Client keeps a stream to the control plane.
type Client struct {
	o    Options
	node *core.Node
	// order is that of subscription.
	order []string
	// wanted is filled when what is asked for by name has changed.
	wanted chan struct{}

	// mu guards below.
	mu     sync.Mutex
	types  map[string]*subscription
	state  State
	synced map[string]bool
}

// subscription is one type's state over reconnects.
type subscription struct {
	versions map[string]string // what is held, by resource name
	// names are those asked for, or nil for everything; awaited are those of them
	// that have not been answered yet.
	names, awaited map[string]bool
	// wishes counts how often names have become others.
	wishes uint64
}

// State is what the admin page and readiness want to know.
type State struct {
	Connected bool
	// Since is when it last connected, or lost the connection.
	Since time.Time
	// Err is why there is no connection, or nil.
	Err error
	// Rejected maps resource names to why they were refused; the name of one of
	// Envoy's has its kind before it, as in "route 8080".
	Rejected map[string]string
	// Awaited are the resources asked for by name that have not been answered, at
	// most a hundred of them, in the same form.
	Awaited []string
}

// subscribed is in the order of subscription: policies before the workloads
// that name them.
var subscribed = []string{AuthorizationType, AddressType}

// NewClient returns a client; Run it.
func NewClient(o Options) (*Client, error) {
	if o.Conn == nil || o.Applier == nil || o.Logger == nil {
		return nil, errors.New("xds: Conn, Applier and Logger must be set")
	}
	fields, err := structpb.NewStruct(o.Metadata)
	if err != nil {
		return nil, fmt.Errorf("xds: node metadata: %w", err)
	}
	c := &Client{o: o, node: &core.Node{Id: o.NodeID, Metadata: fields}, types: map[string]*subscription{}, synced: map[string]bool{},
		order: subscribed, wanted: make(chan struct{}, 1)}
	c.state.Rejected = map[string]string{}
	if o.Envoy != nil {
		c.order = slices.Concat(subscribed, envoyTypes)
	}
	for _, t := range c.order {
		s := &subscription{versions: maps.Clone(o.Known[t])}
		if s.versions == nil {
			s.versions = map[string]string{}
		}
		if t == EndpointType || t == RouteType {
			s.names, s.awaited = map[string]bool{}, map[string]bool{}
		}
		c.types[t] = s
	}
	return c, nil
}

// State is the connection's state now.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.state
	s.Rejected = maps.Clone(s.Rejected)
	for _, t := range c.order {
		for name := range c.types[t].awaited {
			s.Awaited = append(s.Awaited, shown(t, name))
		}
	}
	slices.Sort(s.Awaited)
	s.Awaited = s.Awaited[:min(len(s.Awaited), maxAwaited)]
	return s
}

// Versions is what is held now, for keeping it with the state.
func (c *Client) Versions() Versions {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := Versions{}
	for t, s := range c.types {
		out[t] = maps.Clone(s.versions)
	}
	return out
}

// Run connects, and connects again, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	backoff := minBackoff
	for {
		started := time.Now()
		err := c.stream(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.setState(false, err)
		if errors.Is(err, io.EOF) || time.Since(started) > maxBackoff {
			backoff = minBackoff
		}
		wait := backoff/2 + rand.N(backoff) //nolint:gosec // spreads load, guards nothing
		c.o.Logger.Warn("control plane not connected; trying again", "in", wait.Round(time.Millisecond), "err", err)
		backoff = min(backoff*2, maxBackoff)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

func (c *Client) setState(connected bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.Connected != connected || c.state.Since.IsZero() {
		c.state.Since = time.Now()
	}
	c.state.Connected, c.state.Err = connected, err
}

func (c *Client) held(typeURL string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.types[typeURL].versions)
}

// take applies a response and makes its ACK or NACK.
func (c *Client) take(response *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	t := response.GetTypeUrl()
	answer := &discovery.DeltaDiscoveryRequest{TypeUrl: t, ResponseNonce: response.GetNonce()}
	c.mu.Lock()
	sub, known := c.types[t]
	c.mu.Unlock()
	if !known {
		answer.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: "type was not asked for"}
		return answer
	}
	if slices.Contains(envoyTypes, t) {
		return c.takeEnvoy(sub, response, answer)
	}
	decoded := Decode(t, response.GetResources(), response.GetRemovedResources())
	for _, p := range decoded.StandIns {
		if !c.o.Applier.HasPolicy(p.Key()) {
			decoded.Delta.Policies = append(decoded.Delta.Policies, p)
		}
	}
	before := c.doubt(sub, response)
	rejected := decoded.Rejected
	applied := c.o.Applier.Apply(decoded.Delta)
	if applied != nil {
		for _, r := range response.GetResources() {
			rejected[r.GetName()] = applied
		}
		rejected["*"] = applied
	}
	c.note(sub, response, decoded, before)
	c.verdict(answer, rejected)
	if applied == nil {
		c.sync(t)
	}
	return answer
}

// verdict makes a NACK of an answer if something was refused.
func (c *Client) verdict(answer *discovery.DeltaDiscoveryRequest, rejected map[string]error) {
	if len(rejected) == 0 {
		return
	}
	answer.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: reasons(rejected)}
	c.o.Logger.Error("resources refused; what was known before stays", "type", answer.TypeUrl, "reasons", answer.ErrorDetail.Message)
}

// sync tells once that a type's first response was applied.
func (c *Client) sync(typeURL string) {
	c.mu.Lock()
	first := !c.synced[typeURL]
	c.synced[typeURL] = true
	c.mu.Unlock()
	if first && c.o.Synced != nil {
		c.o.Synced(typeURL)
	}
}

// doubt forgets the versions of what a response is about, before it is applied:
// a state that is read meanwhile may have the old or the new one. The empty version
// is sent again or reported as removed, whichever is true. It returns which of the
// response's resources were held.
func (c *Client) doubt(sub *subscription, response *discovery.DeltaDiscoveryResponse) (held map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	held = map[string]bool{}
	for _, r := range response.GetResources() {
		_, held[r.GetName()] = sub.versions[r.GetName()]
		sub.versions[r.GetName()] = ""
	}
	for _, name := range response.GetRemovedResources() {
		if _, ok := sub.versions[name]; ok {
			sub.versions[name] = ""
		}
	}
	return held
}

// note keeps the versions of what was taken. What was refused keeps none, so that
// it is sent again; where an earlier form or a stand-in is held it keeps its name,
// so that a removal is heard of as well.
func (c *Client) note(sub *subscription, response *discovery.DeltaDiscoveryResponse, decoded Decoded, held map[string]bool) {
	standIns := map[string]bool{}
	for _, p := range decoded.StandIns {
		standIns[p.Key()] = true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range response.GetResources() {
		name := r.GetName()
		if err := decoded.Rejected[name]; err != nil {
			if !held[name] && !standIns[name] {
				delete(sub.versions, name)
			}
			c.state.Rejected[shown(response.GetTypeUrl(), name)] = err.Error()
			continue
		}
		sub.versions[name] = r.GetVersion()
		delete(c.state.Rejected, shown(response.GetTypeUrl(), name))
	}
	if decoded.Rejected["*"] != nil {
		return // removals were not applied either
	}
	for _, name := range response.GetRemovedResources() {
		delete(sub.versions, name)
		delete(c.state.Rejected, shown(response.GetTypeUrl(), name))
	}
}

const (
	// maxReasons bounds the text of a NACK, maxAwaited what is shown of what is awaited.
	maxReasons = 20
	maxAwaited = 100
)

func reasons(rejected map[string]error) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(rejected)) {
		if len(parts) == maxReasons {
			parts = append(parts, fmt.Sprintf("and %d more", len(rejected)-maxReasons))
			break
		}
		parts = append(parts, name+": "+rejected[name].Error())
	}
	return strings.Join(parts, "; ")
}
