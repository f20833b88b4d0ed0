package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-mesh/fairlead/pkg/lab/dns"
	"github.com/fairlead-mesh/fairlead/pkg/lab/network"
	"github.com/fairlead-mesh/fairlead/pkg/lab/objects"
	"github.com/fairlead-mesh/fairlead/pkg/lab/probe"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// AgentLabel with the value "none" on a Node leaves it without an agent, so that
// another mesh's can be attached.
const AgentLabel = "fairlead.dev/agent"

// node is one node. Its fields are owned by the loop unless they say otherwise.
type node struct {
	// Constant after it was made.
	name     string
	slot     int
	host     *network.Host
	addrs    []netip.Prefix
	podCIDRs []netip.Prefix
	resolver *dns.Server
	rules    *mailbox[string]
	enrol    *podwatch.Client // or nil: no agent
	stop     context.CancelFunc
	workers  sync.WaitGroup

	// enrolMu lets a snapshot of the pods see no half of a change.
	enrolMu sync.RWMutex

	object     *corev1.Node
	pools      []*network.Pool
	agent      *daemon // or nil
	agentReady bool
	// agentEpoch counts the agent's starts: pods tell it of themselves again.
	agentEpoch *epoch
	prober     *proberSlot
	// rulesWanted and rulesApplied are equal when services are reachable as they should.
	rulesWanted, rulesApplied string
}

// reconcileNodes makes nodes that are new, and removes those that went.
func (l *Lab) reconcileNodes(ctx context.Context) {
	want := l.set.Nodes
	if len(want) == 0 {
		want = map[objects.Key]*corev1.Node{{Name: "n1"}: {ObjectMeta: metav1.ObjectMeta{Name: "n1"}}}
	}
	changed := false
	for _, key := range sortedKeys(want) {
		if n, ok := l.nodes[key.Name]; ok {
			n.object = want[key]
			continue
		}
		n, err := l.makeNode(ctx, want[key])
		if err != nil {
			l.log.Error("a node was not made", "node", key.Name, "err", err)
			continue
		}
		l.nodes[n.name] = n
		changed = true
	}
	for name, n := range l.nodes {
		if _, ok := want[objects.Key{Name: name}]; !ok {
			l.removeNode(n)
			changed = true
		}
	}
	if !changed {
		return
	}
	l.routeNodes()
	if err := l.record(); err != nil {
		l.log.Error("a later clean-up may miss something", "err", err)
	}
}

func (l *Lab) makeNode(ctx context.Context, object *corev1.Node) (_ *node, err error) {
	slot := 0
	for l.nodeSlots[slot] {
		slot++
	}
	if slot == network.MaxNodes {
		return nil, fmt.Errorf("a lab has at most %d nodes", network.MaxNodes)
	}
	ctx, stop := context.WithCancel(ctx)
	n := &node{
		name: object.Name, slot: slot, object: object, addrs: l.opts.Family.Node(slot), podCIDRs: l.opts.Family.Pods(slot),
		rules: newMailbox[string](), stop: stop, agentEpoch: newEpoch(), prober: newProberSlot(),
	}
	defer func() {
		if err != nil {
			stop()
			if n.host != nil {
				n.host.Close()
			}
		}
	}()
	if own, err := ownCIDRs(object, l.opts.Family); err != nil {
		return nil, err
	} else if len(own) > 0 {
		n.podCIDRs = own
	}
	if n.host, err = l.fabric.AddHost(l.place.netnsPrefix()+"node."+n.name, n.addrs); err != nil {
		return nil, err
	}
	if err := n.host.Bridge(n.podCIDRs); err != nil {
		return nil, err
	}
	if err := n.host.Services(l.opts.Family.ServicePrefixes()); err != nil {
		return nil, err
	}
	for _, p := range n.podCIDRs {
		n.pools = append(n.pools, network.NewPool(p))
	}
	if n.resolver, err = dns.Listen(n.host.NS(), n.host.Gateways()); err != nil {
		return nil, err
	}
	l.nodeSlots[slot] = true
	l.nodeActor(ctx, n, func(ctx context.Context) {
		if err := n.resolver.Run(ctx); err != nil {
			l.log.Error("the node's resolver ended", "node", n.name, "err", err)
		}
	})
	l.nodeActor(ctx, n, func(ctx context.Context) { l.applyRules(ctx, n) })
	l.nodeActor(ctx, n, func(ctx context.Context) { l.runProber(ctx, n) })
	if l.signer != nil {
		if err := l.writeToken(n.name); err != nil {
			return nil, err
		}
	}
	if !l.opts.NoMesh && object.Labels[AgentLabel] != "none" {
		if err := l.startAgent(ctx, n); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// nodeActor starts a goroutine that ends with the node.
func (l *Lab) nodeActor(ctx context.Context, n *node, run func(context.Context)) {
	n.workers.Add(1)
	l.workers.Go(func() {
		defer n.workers.Done()
		run(ctx)
	})
}

// ownCIDRs are the ranges for pods that the Node itself asks for.
func ownCIDRs(object *corev1.Node, family network.Family) ([]netip.Prefix, error) {
	list := object.Spec.PodCIDRs
	if len(list) == 0 && object.Spec.PodCIDR != "" {
		list = []string{object.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("podCIDRs: %w", err)
		}
		if family.Has(p.Addr()) {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, func(a, b netip.Prefix) int { return cmp.Compare(a.Addr().BitLen(), b.Addr().BitLen()) })
	return out, nil
}

// removeNode ends a node: its pods first, in the background.
func (l *Lab) removeNode(n *node) {
	delete(l.nodes, n.name)
	var gone []<-chan struct{}
	for _, p := range l.pods {
		if p.node == n {
			l.deletePod(p)
			gone = append(gone, p.gone)
		}
	}
	l.workers.Go(func() {
		for _, g := range gone {
			<-g
		}
		n.stop()
		n.workers.Wait()
		n.host.Close()
		l.do(func() {
			delete(l.nodeSlots, n.slot)
			if err := l.derived.Delete("Node", objects.Key{Name: n.name}); err != nil {
				l.log.Error(err.Error())
			}
		})
	})
}

// routeNodes tells every host the ways to every other's pods.
func (l *Lab) routeNodes() {
	var errs []error
	for _, to := range l.nodes {
		for _, cidr := range to.podCIDRs {
			via := addrOfFamily(to.addrs, cidr.Addr().Is6())
			if !via.IsValid() {
				continue
			}
			errs = append(errs, l.controlHost.Route(cidr, via))
			for _, from := range l.nodes {
				if from != to {
					errs = append(errs, from.host.Route(cidr, via))
				}
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		l.log.Error("nodes do not reach each other", "err", err)
	}
}

func addrOfFamily(list []netip.Prefix, v6 bool) netip.Addr {
	for _, p := range list {
		if p.Addr().Is6() == v6 {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func (l *Lab) sortedNodes() []*node {
	out := make([]*node, 0, len(l.nodes))
	for _, n := range l.nodes {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	return out
}

func sortedKeys[V any](m map[objects.Key]V) []objects.Key {
	out := make([]objects.Key, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.SortFunc(out, func(a, b objects.Key) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// proberSlot is where pods find their node's prober, which may be started again.
type proberSlot struct {
	mu     sync.Mutex
	client *probe.Client // or nil
	needed chan struct{} // closed by the first who needs it
	once   sync.Once
}

func newProberSlot() *proberSlot { return &proberSlot{needed: make(chan struct{})} }

func (s *proberSlot) set(c *probe.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client = c
}

// get is the prober as it is now, or nil; the first call has it started.
func (s *proberSlot) get() *probe.Client {
	s.once.Do(func() { close(s.needed) })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}
