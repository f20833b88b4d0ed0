package push

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairlead-mesh/fairlead/pkg/control/door"
	"github.com/fairlead-mesh/fairlead/pkg/token"
)

const (
	// maxNames and maxNameBytes bound a subscription by name, of which each is kept.
	maxNames, maxNameBytes = 1 << 16, 8 << 20
	// maxSaid bounds each of what a client says of itself.
	maxSaid = 256
)

var (
	errBehind       = status.Error(codes.Aborted, "too far behind: connect again to get the difference")
	errSilent       = status.Errorf(codes.DeadlineExceeded, "nothing was asked for in %v", longestSilence)
	errTooManyNames = status.Errorf(codes.ResourceExhausted, "more than %d names, or of more than %d MiB: subscribe to everything", maxNames, maxNameBytes>>20)
)

// client is one stream. Its loop is the only sender.
type client struct {
	// Constant.
	server *Server
	stream stream
	caller token.Caller
	from   string
	opened time.Time
	// over ends the stream, for the reason why, which was set before.
	over chan struct{}
	why  error
	// turn to begin goes to the next stream when this one was told what it lacks.
	turn *door.Turn

	// mu guards below. The loop writes, others look.
	mu     sync.Mutex
	chains []*chain // the mesh's, and a waypoint's own
	nonces uint64
	// waypoint is the Gateway whose configuration is sent, or nil.
	waypoint *served
	// cluster, version and build are what the client says of itself.
	cluster, version, build string
}

// event is what came from the client: a request, the end of the stream, or neither: an
// answer after which there may be more to send.
type event struct {
	request *request
	ended   error
}

// run serves the stream until it ends. Its loop waits for few things: thousands of them
// wait for the same change.
func (c *client) run() error {
	events, over := make(chan event), make(chan struct{})
	defer close(over)
	go c.listen(events, over)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	beginning := time.NewTimer(longestStart)
	defer beginning.Stop()
	starting := beginning.C // or nil: it has begun
	begun := func() {
		c.turn.End()
		starting = nil
	}
	for greeted := false; ; {
		_, changed := c.server.o.Log.next()
		var ownChanged <-chan struct{} // or nil: it has none
		if c.waypoint != nil {
			_, ownChanged = c.waypoint.log.next()
		}
		wait, err := c.push()
		if err != nil {
			return err
		}
		if greeted && starting != nil && c.told(true) {
			begun()
		}
		var again <-chan time.Time
		if wait > 0 {
			timer.Reset(wait)
			again = timer.C
		}
		select {
		case e := <-events:
			if e.ended != nil {
				return e.ended
			}
			if e.request == nil {
				continue
			}
			if !greeted {
				if err := c.greet(e.request); err != nil {
					return err
				}
				greeted = true
			}
			if err := c.take(e.request); err != nil {
				return err
			}
		case <-changed:
		case <-ownChanged:
		case <-again:
		case <-starting:
			switch {
			case c.told(false):
				begun()
			case time.Since(c.opened) > longestSilence:
				return errSilent
			default:
				beginning.Reset(longestStart)
			}
		case <-c.over:
			return c.why
		}
	}
}

// listen takes what comes from the client until it ends, or the loop is over.
func (c *client) listen(events chan<- event, over <-chan struct{}) {
	for {
		var e event
		if e.request, e.ended = c.stream.receive(); e.ended == nil {
			if ack, more := c.acknowledge(e.request); ack && !more {
				continue
			} else if ack {
				e.request = nil
			}
		}
		select {
		case events <- e:
		case <-over:
			return
		}
		if e.ended != nil {
			return
		}
	}
}

// told tells whether a client has something that it asked for, or, if asked for, the
// first of it that takes long: the workloads, which come last of what nodes are sent, or a
// waypoint something of its own.
func (c *client) told(most bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, chain := range c.chains {
		for _, s := range chain.subs {
			if s != nil && !s.first && (!most || s.typeURL == AddressType || c.waypoint != nil) {
				return true
			}
		}
	}
	return false
}

// greet refuses a client that speaks for another node or pod than its token's,
// and finds out whose configuration it may have.
func (c *client) greet(r *request) error {
	if r.GetNode() == nil {
		return status.Error(codes.InvalidArgument, "the first request has no node")
	}
	parts := strings.Split(r.Node.GetId(), "~")
	if len(parts) != 4 || parts[2] != c.caller.Pod+"."+c.caller.Namespace {
		return status.Errorf(codes.PermissionDenied, "node id is %q, the token is of pod %s.%s", r.Node.GetId(), c.caller.Pod, c.caller.Namespace)
	}
	metadata := r.Node.GetMetadata().GetFields()
	name, isWaypoint := metadata["NODE_NAME"].GetStringValue(), parts[0] == waypointRole
	if name != c.caller.Node && (name != "" || !isWaypoint) {
		return status.Errorf(codes.PermissionDenied, "NODE_NAME is %q, the token is of a pod on node %q", name, c.caller.Node)
	}
	c.mu.Lock()
	c.cluster, c.version, c.build = said(metadata, "CLUSTER_ID"), said(metadata, istioVersion), said(metadata, fairleadVersion)
	c.mu.Unlock()
	if !isWaypoint {
		if !slices.Contains(c.server.o.NodeAccounts, c.caller.Account()) {
			return status.Errorf(codes.PermissionDenied, "service account %s is no node agent's; those that are: %s", c.caller.Account(), strings.Join(c.server.o.NodeAccounts, ", "))
		}
		c.server.o.Logger.Info("discovery stream", "node", c.caller.Node, "from", c.from)
		return nil
	}
	waypoint, err := c.server.o.Waypoints.open(c.caller, metadata)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.waypoint = waypoint
	c.chains = append(c.chains, envoyChain(waypoint.log))
	c.mu.Unlock()
	c.server.o.Logger.Info("discovery stream", "waypoint", waypoint.name(), "node", c.caller.Node, "from", c.from)
	return nil
}

// said is what a client says of itself, cut short where it is long, in a copy: the request that it is of may be large.
func said(metadata map[string]*structpb.Value, field string) string {
	text := metadata[field].GetStringValue()
	return strings.ToValidUTF8(strings.Clone(text[:min(len(text), maxSaid)]), "")
}

// close lets go of what greet found.
func (c *client) close() {
	if c.waypoint != nil {
		c.server.o.Waypoints.close(c.waypoint)
	}
}

// find is where a type's subscription belongs, or nil for what is not served.
func (c *client) findLocked(typeURL string) (slot **subscription) {
	for _, chain := range c.chains {
		if i := slices.Index(chain.types, typeURL); i >= 0 {
			return &chain.subs[i]
		}
	}
	return nil
}

// acknowledge handles a request that is nothing but an ACK of a node's agent: a change
// brings one of each, and most have nothing follow. It tells whether it was one, and
// whether there may be more to send.
func (c *client) acknowledge(r *request) (ack, more bool) {
	if r.GetResponseNonce() == "" || r.GetErrorDetail() != nil || len(r.GetResourceNamesSubscribe()) > 0 || len(r.GetResourceNamesUnsubscribe()) > 0 {
		return false, false
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waypoint != nil {
		return false, false
	}
	sub := c.findLocked(r.GetTypeUrl())
	if sub == nil || *sub == nil {
		return false, false
	}
	c.answered(*sub, r.GetResponseNonce(), "", false, now)
	for _, chain := range c.chains {
		newest, _ := chain.log.next()
		for _, s := range chain.subs {
			more = more || s != nil && !s.settled(newest)
		}
	}
	return true, more
}

// take handles a request: a subscription, an ACK or a NACK.
func (c *client) take(r *request) error {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	sub := c.findLocked(r.GetTypeUrl())
	if sub == nil {
		if c.waypoint != nil {
			return nil // an Envoy with Istio's agent asks for more, and does without
		}
		return status.Errorf(codes.PermissionDenied, "type %q is not served to node agents; these are: %s", r.GetTypeUrl(), strings.Join(meshTypes, ", "))
	}
	if *sub == nil {
		*sub = &subscription{typeURL: r.GetTypeUrl(), first: true, held: r.held}
		names := r.GetResourceNamesSubscribe()
		everything := slices.Contains(names, "*") || len(names) == 0 && wildcard(r.GetTypeUrl())
		switch {
		case slices.Contains(r.GetResourceNamesUnsubscribe(), "*"):
			(*sub).names, (*sub).held = map[string]bool{}, nil
		case !everything:
			(*sub).names = map[string]bool{}
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
	c.server.metrics.of(sub.typeURL).acknowledged.Observe(now.Sub(w.at).Seconds())
	if refused {
		c.server.metrics.nacks.WithLabelValues(kindOf(sub.typeURL)).Inc()
		c.server.o.Logger.Error("client refused resources; they are sent again", "pod", c.caller.Namespace+"/"+c.caller.Pod, "node", c.caller.Node, "from", c.from,
			"type", sub.typeURL, "reason", sub.reason, "resources", len(sub.refused), "in", sub.retry.Sub(now))
	}
}

// subscribe adds and takes away names.
func (s *subscription) subscribe(r *request) error {
	for _, name := range r.GetResourceNamesSubscribe() {
		switch {
		case s.names == nil || name == "*" && slices.Contains(r.GetResourceNamesUnsubscribe(), "*"):
		case name == "*":
			s.names, s.nameBytes, s.asked, s.first, s.held = nil, 0, nil, true, nil
		case s.typeURL == AddressType && isAddress(name):
			// An answer of "no such address" would be taken for "outside the mesh".
			return status.Errorf(codes.InvalidArgument, "%q: addresses are not looked up on demand; subscribe to everything (ztunnel: XDS_ON_DEMAND=false)", name)
		case s.names[name]:
			s.ask(name)
		case len(s.names) >= maxNames, s.nameBytes+len(name) > maxNameBytes:
			return errTooManyNames
		default:
			s.names[name] = true
			s.nameBytes += len(name)
			s.ask(name)
		}
	}
	if s.names == nil {
		return nil
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		if s.names[name] {
			s.nameBytes -= len(name)
		}
		delete(s.names, name)
		delete(s.asked, name)
		delete(s.refused, name)
	}
	return nil
}

// ask has a name answered.
func (s *subscription) ask(name string) {
	if s.asked == nil {
		s.asked = map[string]bool{}
	}
	s.asked[name] = true
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

// push sends what is due and returns when to look again, or zero for "when
// something happens".
func (c *client) push() (wait time.Duration, err error) {
	now := time.Now()
	c.mu.Lock()
	var steps []step
	for _, chain := range c.chains {
		more, later, err := chain.plan(now, c.opened)
		if err != nil {
			c.mu.Unlock()
			return 0, err
		}
		steps, wait = append(steps, more...), soonest(wait, later)
	}
	for i := range steps {
		c.nonces++
		nonce := strconv.FormatUint(c.nonces, 16)
		steps[i].msg.nonce, steps[i].msg.typeURL = nonce, steps[i].sub.typeURL
		steps[i].sub.waiting = append(steps[i].sub.waiting, &sent{nonce: nonce, diff: steps[i].msg.diff, upTo: steps[i].sub.cursor, at: now})
	}
	c.mu.Unlock()
	for _, s := range steps {
		_, size := s.msg.diff.encoded()
		c.server.metrics.of(s.sub.typeURL).pushes.Inc()
		c.server.metrics.bytes.Add(float64(size))
		if err := c.stream.send(s.msg); err != nil {
			return 0, err
		}
	}
	return wait, nil
}
