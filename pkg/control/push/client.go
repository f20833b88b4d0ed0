package push

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-mesh/fairlead/pkg/token"
)

// maxNames bounds a subscription by name, and what a client may say it holds.
const maxNames = 1 << 20

// order is that in which types are sent.
var order = []string{AuthorizationType, AddressType}

// client is one stream. Its loop is the only sender.
type client struct {
	// Constant.
	server *Server
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	caller token.Caller
	from   string
	since  time.Time

	// mu guards below against readers of the state.
	mu   sync.Mutex
	subs map[string]*subscription
}

// subscription is a client's state of one type.
type subscription struct {
	cursor uint64
	// names is nil for a wildcard.
	names map[string]bool
	// answer is a request that must be answered, even with nothing, or nil.
	answer *difference
	// waiting is the nonce that is not acknowledged yet, or "". Until it is,
	// changes gather in the log.
	waiting, acked string
	nack           string
	sentAt         time.Time
}

func (c *client) run() error {
	requests := make(chan *discovery.DeltaDiscoveryRequest)
	ended := make(chan error, 1)
	go func() {
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
	first := true
	for {
		_, changed := c.server.o.Log.head()
		wait, err := c.send()
		if err != nil {
			return err
		}
		var again <-chan time.Time
		var timer *time.Timer
		if wait > 0 {
			timer = time.NewTimer(wait)
			again = timer.C
		}
		select {
		case r := <-requests:
			if first {
				if err := c.checkNode(r); err != nil {
					return err
				}
				first = false
			}
			err = c.take(r)
		case <-changed:
		case <-again:
		case err = <-ended:
			return err
		case <-c.stream.Context().Done():
			return nil
		}
		if timer != nil {
			timer.Stop()
		}
		if err != nil {
			return err
		}
	}
}

// checkNode refuses a client that speaks for another node than its token's.
func (c *client) checkNode(r *discovery.DeltaDiscoveryRequest) error {
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
	t := r.GetTypeUrl()
	if !slices.Contains(order, t) {
		return status.Errorf(codes.PermissionDenied, "type %q is not served to node agents; these are: %s", t, strings.Join(order, ", "))
	}
	if len(r.GetInitialResourceVersions()) > maxNames || len(r.GetResourceNamesSubscribe()) > maxNames {
		return status.Errorf(codes.ResourceExhausted, "more than %d names", maxNames)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	sub, ok := c.subs[t]
	if !ok {
		sub = &subscription{}
		c.subs[t] = sub
		c.subscribeFirst(sub, t, r)
		return nil
	}
	if nonce := r.GetResponseNonce(); nonce != "" {
		if nonce == sub.waiting {
			sub.waiting, sub.acked, sub.nack = "", nonce, ""
		}
		if e := r.GetErrorDetail(); e != nil {
			sub.nack = e.GetMessage()
			c.server.nacks.WithLabelValues(t).Inc()
			c.server.o.Logger.Error("client refused resources", "node", c.caller.Node, "type", t, "reason", sub.nack)
		}
	}
	c.subscribeMore(sub, t, r)
	return nil
}

// subscribeFirst: no names, or "*", is everything.
func (c *client) subscribeFirst(sub *subscription, t string, r *discovery.DeltaDiscoveryRequest) {
	names := r.GetResourceNamesSubscribe()
	if len(names) == 0 || slices.Contains(names, "*") && !slices.Contains(r.GetResourceNamesUnsubscribe(), "*") {
		d := c.server.o.Log.against(t, r.GetInitialResourceVersions())
		sub.answer, sub.cursor = &d, d.upTo
		return
	}
	sub.names = map[string]bool{}
	c.subscribeMore(sub, t, r)
	if sub.answer == nil {
		seq, _ := c.server.o.Log.head()
		sub.answer, sub.cursor = &difference{upTo: seq}, seq
	}
}

func (c *client) subscribeMore(sub *subscription, t string, r *discovery.DeltaDiscoveryRequest) {
	if sub.names == nil {
		return
	}
	var added []string
	for _, name := range r.GetResourceNamesSubscribe() {
		if name != "*" && len(sub.names) < maxNames {
			sub.names[name] = true
			added = append(added, name)
		}
	}
	for _, name := range r.GetResourceNamesUnsubscribe() {
		delete(sub.names, name)
	}
	if len(added) > 0 {
		d := c.server.o.Log.named(t, added)
		if sub.answer != nil {
			d.resources, d.removed = append(sub.answer.resources, d.resources...), append(sub.answer.removed, d.removed...)
		}
		sub.answer = &d
		if sub.cursor == 0 {
			sub.cursor = d.upTo
		}
	}
}

// send sends what is due and returns when to look again, zero for "when
// something happens". A workload is not sent while a policy that came before it
// could not be: policies go first, and their removals last.
func (c *client) send() (wait time.Duration, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var removals []string
	for _, t := range order {
		sub := c.subs[t]
		if sub == nil {
			continue
		}
		d, due, later, err := c.due(sub, t)
		if err != nil {
			return 0, err
		}
		wait = shorter(wait, later)
		if !due {
			if t == AuthorizationType && !d.empty() {
				return wait, nil
			}
			continue
		}
		if t == AuthorizationType && c.subs[AddressType] != nil && len(d.resources) == 0 && sub.answer == nil && c.addressesDue() {
			removals = d.removed
			continue
		}
		if err := c.write(sub, t, d); err != nil {
			return 0, err
		}
	}
	if removals == nil {
		return wait, nil
	}
	sub := c.subs[AuthorizationType]
	d, ok := c.server.o.Log.since(AuthorizationType, sub.cursor)
	if !ok {
		return 0, errBehind
	}
	return wait, c.write(sub, AuthorizationType, d)
}

var errBehind = status.Error(codes.Aborted, "too far behind: connect again to get the difference")

func (c *client) addressesDue() bool {
	_, due, _, err := c.due(c.subs[AddressType], AddressType)
	return due && err == nil
}

// due is what a type has to send, whether it may be sent now, and else when.
func (c *client) due(sub *subscription, t string) (d difference, now bool, later time.Duration, err error) {
	d, ok := c.server.o.Log.since(t, sub.cursor)
	if !ok {
		return d, false, 0, errBehind
	}
	if sub.names != nil {
		d = d.only(sub.names)
	}
	if sub.answer != nil {
		d.prepend(sub.answer)
		return d, sub.waiting == "", 0, nil
	}
	if d.empty() {
		sub.cursor = d.upTo
		return d, false, 0, nil
	}
	if sub.waiting != "" {
		return d, false, 0, nil // the ACK wakes the loop
	}
	if later = interval - time.Since(sub.sentAt); later > 0 {
		return d, false, later, nil
	}
	return d, true, 0, nil
}

func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

func (c *client) write(sub *subscription, t string, d difference) error {
	nonce := c.server.nonce()
	sub.answer, sub.cursor, sub.waiting, sub.sentAt = nil, d.upTo, nonce, time.Now()
	size := 0
	for _, r := range d.resources {
		size += len(r.field)
	}
	c.server.pushes.WithLabelValues(t).Inc()
	c.server.bytes.Add(float64(size))
	// The reader of the state need not wait for a slow network.
	c.mu.Unlock()
	defer c.mu.Lock()
	return c.stream.SendMsg(&response{typeURL: t, nonce: nonce, diff: d})
}

// only keeps what is subscribed by name.
func (d difference) only(names map[string]bool) difference {
	d.resources = slices.DeleteFunc(d.resources, func(r *resource) bool { return !names[r.name] })
	d.removed = slices.DeleteFunc(d.removed, func(n string) bool { return !names[n] })
	return d
}

// prepend adds an older difference; what d says of a resource holds.
func (d *difference) prepend(older *difference) {
	newer := map[string]bool{}
	for _, r := range d.resources {
		newer[r.name] = true
	}
	for _, n := range d.removed {
		newer[n] = true
	}
	for _, r := range older.resources {
		if !newer[r.name] {
			d.resources = append(d.resources, r)
		}
	}
	for _, n := range older.removed {
		if !newer[n] {
			d.removed = append(d.removed, n)
		}
	}
}

func (c *client) sync(head uint64) Sync {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Sync{Node: c.caller.Node, Caller: c.caller.Account(), From: c.from, Connected: c.since, Types: map[string]TypeSync{}}
	for t, sub := range maps.All(c.subs) {
		s.Types[t] = TypeSync{Behind: head - sub.cursor, Sent: sub.waiting, Acked: sub.acked, Nack: sub.nack}
	}
	return s
}
