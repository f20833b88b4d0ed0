package differential

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Types of resources, in the order in which they are sent.
const (
	clusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	listenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

var resourceTypes = []string{clusterType, endpointType, listenerType, routeType}

// ads is a delta ADS server for one proxy.
type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	address string
	server  *grpc.Server

	// mu guards below.
	mu        sync.Mutex
	version   int
	resources map[string]map[string]*discovery.Resource
	acked     map[string]map[string]string // versions that the proxy has, by type and name
	nacks     []string
	wake      chan struct{} // closed at every change
}

func newADS(l net.Listener) *ads {
	a := &ads{address: l.Addr().String(), server: grpc.NewServer(), resources: map[string]map[string]*discovery.Resource{}, wake: make(chan struct{})}
	a.forget()
	for _, t := range resourceTypes {
		a.resources[t] = map[string]*discovery.Resource{}
	}
	discovery.RegisterAggregatedDiscoveryServiceServer(a.server, a)
	go func() { _ = a.server.Serve(l) }()
	return a
}

// forget is that a proxy starts anew.
func (a *ads) forget() {
	a.acked = map[string]map[string]string{}
	for _, t := range resourceTypes {
		a.acked[t] = map[string]string{}
	}
}

func (a *ads) changed() {
	close(a.wake)
	a.wake = make(chan struct{})
}

// set adds or replaces resources, and removes those named; both by type and name.
func (a *ads) set(add map[string]map[string]proto.Message, remove map[string][]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	for t, byName := range add {
		for name, m := range byName {
			packed, err := anypb.New(m)
			if err != nil {
				panic(err)
			}
			a.resources[t][name] = &discovery.Resource{Name: name, Version: fmt.Sprint(a.version), Resource: packed}
		}
	}
	for t, names := range remove {
		for _, name := range names {
			delete(a.resources[t], name)
		}
	}
	a.changed()
}

// settle waits until the proxy has acknowledged everything.
func (a *ads) settle(t testing.TB) {
	t.Helper()
	until(t, "the configuration is taken", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.nacks) > 0 {
			text := strings.Join(a.nacks, "\n")
			a.nacks = nil
			t.Fatalf("the configuration is refused: %s", text)
		}
		for _, typ := range resourceTypes {
			for name, r := range a.resources[typ] {
				if a.acked[typ][name] != r.GetVersion() {
					return false
				}
			}
			for name := range a.acked[typ] {
				if a.resources[typ][name] == nil {
					return false
				}
			}
		}
		return true
	})
}

// subscriber is one type on one stream.
type subscriber struct {
	wildcard bool
	names    map[string]bool
	sent     map[string]string
	nonce    string
	pending  map[string]string // by name; "" is a removal
}

// DeltaAggregatedResources implements the service.
func (a *ads) DeltaAggregatedResources(s discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	requests := make(chan *discovery.DeltaDiscoveryRequest)
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	go func() {
		defer cancel()
		for {
			r, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	}()
	a.mu.Lock()
	a.forget()
	a.mu.Unlock()
	subs := map[string]*subscriber{}
	nonce := 0
	for {
		a.mu.Lock()
		wake := a.wake
		a.mu.Unlock()
		for _, t := range resourceTypes {
			sub := subs[t]
			if sub == nil || sub.pending != nil {
				continue
			}
			out := a.outstanding(t, sub)
			if out == nil {
				continue
			}
			nonce++
			sub.nonce = fmt.Sprint(nonce)
			out.Nonce = sub.nonce
			if err := s.Send(out); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case r := <-requests:
			a.request(subs, r)
		}
	}
}

func (a *ads) request(subs map[string]*subscriber, r *discovery.DeltaDiscoveryRequest) {
	t := r.GetTypeUrl()
	sub := subs[t]
	if sub == nil {
		sub = &subscriber{wildcard: len(r.GetResourceNamesSubscribe()) == 0, names: map[string]bool{}, sent: map[string]string{}}
		subs[t] = sub
	}
	for _, n := range r.GetResourceNamesSubscribe() {
		if n == "*" {
			sub.wildcard = true
			continue
		}
		sub.names[n] = true
		delete(sub.sent, n)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range r.GetResourceNamesUnsubscribe() {
		delete(sub.names, n)
		delete(sub.sent, n)
		delete(a.acked[t], n)
	}
	if r.GetResponseNonce() == "" || r.GetResponseNonce() != sub.nonce {
		return
	}
	if e := r.GetErrorDetail(); e != nil {
		a.nacks = append(a.nacks, fmt.Sprintf("%s: %s", t[strings.LastIndexByte(t, '.')+1:], e.GetMessage()))
	}
	for name, version := range sub.pending {
		if version == "" {
			delete(a.acked[t], name)
		} else if a.acked[t] != nil {
			a.acked[t][name] = version
		}
	}
	sub.pending = nil
}

// outstanding is what a subscriber is to be told, or nil.
func (a *ads) outstanding(t string, sub *subscriber) *discovery.DeltaDiscoveryResponse {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &discovery.DeltaDiscoveryResponse{TypeUrl: t, SystemVersionInfo: fmt.Sprint(a.version)}
	pending := map[string]string{}
	for name, r := range a.resources[t] {
		if (sub.wildcard || sub.names[name]) && sub.sent[name] != r.GetVersion() {
			out.Resources = append(out.Resources, r)
			pending[name], sub.sent[name] = r.GetVersion(), r.GetVersion()
		}
	}
	for name := range sub.sent {
		if a.resources[t][name] == nil {
			out.RemovedResources = append(out.RemovedResources, name)
			pending[name] = ""
			delete(sub.sent, name)
		}
	}
	if len(pending) == 0 && (sub.nonce != "" || !sub.wildcard) {
		return nil
	}
	sub.pending = pending
	return out
}

// until polls a condition.
func until(t testing.TB, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !condition(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
