package push

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// interval is the least time between two pushes to one client: a lone change
	// goes at once, a storm of them twenty times a second.
	interval = 50 * time.Millisecond
	// grace is how long a new client's workloads wait for it to ask for policies,
	// which it should have first.
	grace = 100 * time.Millisecond
	// maxNames bounds a subscription by name.
	maxNames = 1 << 16
	// maxLate bounds the removals that are kept back; more are sent at once.
	maxLate = 1 << 12
)

var errBehind = status.Error(codes.Aborted, "too far behind: connect again to get the difference")

// client is one stream. Its loop is the only sender.
type client struct {
	// Constant.
	server *Server
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	caller token.Caller
	from   string
	opened time.Time
	// replaced ends the stream: too many others of its agent came after it.
	replaced chan struct{}

	// mu guards below. The loop writes, others look.
	mu                  sync.Mutex
	policies, addresses *subscription // or nil: not asked for
	pushed              time.Time
	nonces              uint64
}

// run serves the stream until it ends.
func (c *client) run() error {
	requests := make(chan *discovery.DeltaDiscoveryRequest)
	ended := make(chan error, 1)
	go func() { // ends with the stream, which ends when run returns
		for {
			r, err := c.stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- r:
			case <-c.stream.Context().Done():
				return
			}
		}
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for greeted := false; ; {
		_, changed := c.server.o.Log.next()
		wait, err := c.push()
		if err != nil {
			return err
		}
		var again <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			again = timer.C
		}
		select {
		case r := <-requests:
			if !greeted {
				if err := c.greet(r); err != nil {
					return err
				}
				greeted = true
			}
			if err := c.take(r); err != nil {
				return err
			}
		case <-changed:
		case <-again:
		case err := <-ended:
			return err
		case <-c.replaced:
			return status.Errorf(codes.Aborted, "more than %d streams of %s on node %s: this one is the oldest", maxStreams, c.caller.Pod, c.caller.Node)
		case <-c.stream.Context().Done():
			return nil
		}
	}
}

// greet refuses a client that speaks for another node or pod than its token's.
func (c *client) greet(r *discovery.DeltaDiscoveryRequest) error {
	if r.GetNode() == nil {
		return status.Error(codes.InvalidArgument, "the first request has no node")
	}
	if name := r.Node.GetMetadata().GetFields()["NODE_NAME"].GetStringValue(); name != c.caller.Node {
		return status.Errorf(codes.PermissionDenied, "NODE_NAME is %q, the token is of a pod on node %q", name, c.caller.Node)
	}
	if parts := strings.Split(r.Node.GetId(), "~"); len(parts) != 4 || parts[2] != c.caller.Pod+"."+c.caller.Namespace {
		return status.Errorf(codes.PermissionDenied, "node id is %q, the token is of pod %s.%s", r.Node.GetId(), c.caller.Pod, c.caller.Namespace)
	}
	c.server.o.Logger.Info("discovery stream", "node", c.caller.Node, "from", c.from)
	return nil
}

// take handles a request: a subscription, an ACK or a NACK.
func (c *client) take(r *discovery.DeltaDiscoveryRequest) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	var sub **subscription
	switch r.GetTypeUrl() {
	case AuthorizationType:
		sub = &c.policies
	case AddressType:
		sub = &c.addresses
	default:
		return status.Errorf(codes.PermissionDenied, "type %q is not served to node agents; these are: %s, %s", r.GetTypeUrl(), AuthorizationType, AddressType)
	}
	if *sub == nil {
		*sub = &subscription{typeURL: r.GetTypeUrl(), first: true, held: r.GetInitialResourceVersions()}
		names := r.GetResourceNamesSubscribe()
		if everything := len(names) == 0 || slices.Contains(names, "*"); !everything || slices.Contains(r.GetResourceNamesUnsubscribe(), "*") {
			(*sub).names, (*sub).held = map[string]bool{}, nil
		}
	} else if nonce := r.GetResponseNonce(); nonce != "" {
		c.answered(*sub, nonce, r.GetErrorDetail().GetMessage(), r.GetErrorDetail() != nil, now)
	}
	return (*sub).subscribe(r)
}

func (c *client) answered(sub *subscription, nonce, reason string, refused bool, now time.Time) {
	if refused && reason == "" {
		reason = "no reason given"
	}
	w := sub.answered(nonce, reason, now)
	if w == nil {
		return // of a response that a later answer stood for already
	}
	c.server.metrics.acknowledged.WithLabelValues(kindOf(sub.typeURL)).Observe(now.Sub(w.at).Seconds())
	if refused {
		c.server.metrics.nacks.WithLabelValues(kindOf(sub.typeURL)).Inc()
		c.server.o.Logger.Error("client refused resources; they are sent again", "node", c.caller.Node, "from", c.from,
			"type", sub.typeURL, "reason", sub.reason, "resources", len(sub.refused), "in", sub.retry.Sub(now))
	}
}

// subscribe adds and takes away names.
func (s *subscription) subscribe(r *discovery.DeltaDiscoveryRequest) error {
	for _, name := range r.GetResourceNamesSubscribe() {
		switch {
		case s.names == nil || name == "*" && slices.Contains(r.GetResourceNamesUnsubscribe(), "*"):
		case name == "*":
			s.names, s.asked, s.first, s.held = nil, nil, true, nil
		case s.typeURL == AddressType && isAddress(name):
			// An answer of "no such address" would be taken for "outside the mesh".
			return status.Errorf(codes.InvalidArgument, "%q: addresses are not looked up on demand; subscribe to everything (ztunnel: XDS_ON_DEMAND=false)", name)
		case len(s.names) >= maxNames:
			return status.Errorf(codes.ResourceExhausted, "more than %d names: subscribe to everything", maxNames)
		default:
			s.names[name] = true
			if s.asked == nil {
				s.asked = map[string]bool{}
			}
			s.asked[name] = true
		}
	}
	if s.names == nil {
		return nil
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		delete(s.names, name)
		delete(s.asked, name)
		delete(s.refused, name)
	}
	return nil
}

// isAddress tells an alias of the form "network/address" from a resource's name.
func isAddress(name string) bool {
	network, address, ok := strings.Cut(name, "/")
	if !ok || strings.Contains(network, "/") {
		return false
	}
	_, err := netip.ParseAddr(address)
	return err == nil
}

// step is one response to send.
type step struct {
	sub *subscription
	msg *response
}

// push sends what is due and returns when to look again, or zero for "when
// something happens".
func (c *client) push() (wait time.Duration, err error) {
	now := time.Now()
	c.mu.Lock()
	steps, wait, err := c.plan(now)
	for i := range steps {
		c.nonces++
		nonce := fmt.Sprintf("%x", c.nonces)
		steps[i].msg.nonce, steps[i].msg.typeURL = nonce, steps[i].sub.typeURL
		steps[i].sub.waiting = append(steps[i].sub.waiting, &sent{nonce: nonce, diff: steps[i].msg.diff, upTo: steps[i].sub.cursor, at: now})
		c.pushed = now
	}
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	for _, s := range steps {
		_, size := s.msg.diff.encoded()
		c.server.metrics.pushes.WithLabelValues(kindOf(s.sub.typeURL)).Inc()
		c.server.metrics.bytes.Add(float64(size))
		if err := c.stream.SendMsg(s.msg); err != nil {
			return 0, err
		}
	}
	return wait, nil
}

// plan decides what to send, from one moment of the log: policies, then the
// workloads that may name them, then the removal of policies that none of these
// names any more. A type waits for its last response's ACK; meanwhile what it
// misses is the log's to remember, and workloads wait for policies.
func (c *client) plan(now time.Time) (steps []step, wait time.Duration, err error) {
	l := c.server.o.Log
	l.mu.RLock()
	defer l.mu.RUnlock()
	p, err := c.policies.dueLocked(l, now)
	if err != nil {
		return nil, 0, err
	}
	a, err := c.addresses.dueLocked(l, now)
	if err != nil {
		return nil, 0, err
	}
	early := interval - now.Sub(c.pushed) // until a push that nobody asked for
	wait = soonest(p.retry, a.retry)

	blocked := false
	if p.sub != nil {
		switch additions := p.diff.additions; {
		case !p.owed && additions.empty():
			p.sub.keepBack(p.diff, l.seq)
		case len(p.sub.waiting) > 0:
			blocked = true
		case !p.owed && early > 0:
			blocked, wait = true, soonest(wait, early)
		default:
			p.sub.keepBack(p.diff, l.seq)
			steps = append(steps, step{p.sub, &response{diff: additions}})
		}
	}

	caughtUp := !a.pending()
	switch hold := grace - now.Sub(c.opened); {
	case caughtUp && a.sub != nil:
		a.sub.told(l.seq)
	case caughtUp, blocked, len(a.sub.waiting) > 0:
	case p.sub == nil && a.sub.first && hold > 0:
		wait = soonest(wait, hold)
	case !a.owed && early > 0:
		wait = soonest(wait, early)
	default:
		a.sub.told(l.seq)
		steps = append(steps, step{a.sub, &response{diff: a.diff}})
		caughtUp = true
	}

	if p.sub == nil || blocked || len(p.sub.late) == 0 || len(p.sub.waiting) > 0 || !caughtUp && len(p.sub.late) <= maxLate {
		return steps, wait, nil
	}
	if len(steps) == 0 && early > 0 {
		return nil, soonest(wait, early), nil
	}
	if gone := p.sub.stillGoneLocked(l); len(gone) > 0 {
		steps = append(steps, step{p.sub, &response{diff: newDifference(nil, gone)}})
	}
	p.sub.late = nil
	return steps, wait, nil
}

// keepBack takes note of a difference whose removals are sent later.
func (s *subscription) keepBack(d *difference, upTo uint64) {
	switch {
	case len(d.removed) == 0:
	case len(s.late) == 0:
		s.late = slices.Clip(d.removed) // shared with other clients
	default:
		s.late = append(s.late, d.removed...)
	}
	s.told(upTo)
}

func soonest(a, b time.Duration) time.Duration {
	if a <= 0 || b > 0 && b < a {
		return max(b, 0)
	}
	return a
}
