package local

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
)

// Finder finds the network namespace of a pod by its uid; hostproc.Proc is one.
type Finder interface {
	Find(uid string) (hostproc.NetNS, error)
}

// Options of a [Controller]; all must be set but Observe and Namespaces.
type Options struct {
	API     *kube.Client
	Manager *podwatch.Manager
	Finder  Finder
	// Node is this node's name.
	Node   string
	Rule   podwatch.Rule
	Logger *slog.Logger
	// Observe is told of each try to enrol a pod.
	Observe func(err error)
	// Namespaces is told the labels of all namespaces when one changes.
	Namespaces func(labels map[string]map[string]string)
}

// Controller makes the node's pods as labels ask. Use [New].
type Controller struct {
	// Constant after New.
	o     Options
	slots chan struct{} // bounds what is worked on at once

	// mu guards below.
	mu         sync.Mutex
	pods       map[string]*pod              // by uid
	namespaces map[string]map[string]string // labels, by name
	listed     struct{ pods, namespaces bool }
	told       bool            // the manager was told all pods
	first      map[string]bool // uids whose first try is awaited before that
	run        context.Context // of Run; nil before
	work       sync.WaitGroup
}

// pod is one pod of the node. The controller's lock guards it.
type pod struct {
	object  kube.Pod
	gone    bool          // the API has it no more
	working bool          // a worker has it
	changed chan struct{} // holds one: there is something to look at
}

// How pods are worked on.
const (
	parallel   = 4
	firstRetry = 250 * time.Millisecond
	lastRetry  = 30 * time.Second
	// withdrawn is how long a pod that leaves the mesh stays captured after the
	// control plane was told: callers elsewhere hear of it in that time.
	withdrawn = time.Second
	// enrolling bounds one try.
	enrolling = 20 * time.Second
)

// New returns a Controller; call Run once.
func New(o Options) (*Controller, error) {
	if o.API == nil || o.Manager == nil || o.Finder == nil || o.Node == "" || o.Logger == nil {
		return nil, errors.New("local: API, Manager, Finder, Node and Logger must be set")
	}
	if o.Observe == nil {
		o.Observe = func(error) {}
	}
	if o.Namespaces == nil {
		o.Namespaces = func(map[string]map[string]string) {}
	}
	return &Controller{
		o: o, slots: make(chan struct{}, parallel), pods: map[string]*pod{}, namespaces: map[string]map[string]string{}, first: map[string]bool{},
	}, nil
}

// Run follows the API until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	c.mu.Lock()
	c.run = ctx
	c.mu.Unlock()
	c.work.Go(func() {
		kube.Follow(ctx, c.o.API, "/api/v1/namespaces", "", kube.Follower[kube.Namespace]{
			Replace: c.replaceNamespaces, Put: c.putNamespace, Delete: c.deleteNamespace,
		}, c.o.Logger)
	})
	c.work.Go(func() {
		kube.Follow(ctx, c.o.API, "/api/v1/pods", "spec.nodeName="+c.o.Node, kube.Follower[kube.Pod]{
			Replace: c.replacePods, Put: c.putPod, Delete: c.deletePod,
		}, c.o.Logger)
	})
	<-ctx.Done()
	c.work.Wait()
	return nil
}

func (c *Controller) replaceNamespaces(all []kube.Namespace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespaces = make(map[string]map[string]string, len(all))
	for _, n := range all {
		c.namespaces[n.Name] = n.Labels
	}
	c.listed.namespaces = true
	c.namespacesChanged("")
}

func (c *Controller) putNamespace(n kube.Namespace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.namespaces[n.Name] = n.Labels
	c.namespacesChanged(n.Name)
}

func (c *Controller) deleteNamespace(n kube.Namespace) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.namespaces, n.Name)
	c.namespacesChanged(n.Name)
}

// namespacesChanged has the pods looked at of a namespace, or of all for "".
func (c *Controller) namespacesChanged(name string) {
	c.o.Namespaces(c.namespaces)
	for uid, p := range c.pods {
		if name == "" || p.object.Namespace == name {
			c.lookAt(uid, p)
		}
	}
	c.begin()
}

func (c *Controller) replacePods(all []kube.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := map[string]bool{}
	for _, o := range all {
		there[o.UID] = true
		c.put(o)
	}
	for uid, p := range c.pods {
		if !there[uid] {
			p.gone = true
			c.lookAt(uid, p)
		}
	}
	c.listed.pods = true
	c.begin()
}

func (c *Controller) putPod(o kube.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(o)
}

func (c *Controller) deletePod(o kube.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.pods[o.UID]; p != nil {
		p.gone = true
		c.lookAt(o.UID, p)
	}
}

// put takes a pod's object; mu is held.
func (c *Controller) put(o kube.Pod) *pod {
	p := c.pods[o.UID]
	if p == nil {
		p = &pod{changed: make(chan struct{}, 1)}
		c.pods[o.UID] = p
	}
	p.object = o
	c.lookAt(o.UID, p)
	return p
}

// begin looks at every pod once both lists are here, and has the manager forget
// pods of an earlier run that are no more. mu is held.
func (c *Controller) begin() {
	if c.told || !c.listed.pods || !c.listed.namespaces || len(c.first) > 0 {
		return
	}
	for _, e := range c.o.Manager.Pods() {
		if c.pods[e.UID] == nil {
			p := &pod{gone: true, changed: make(chan struct{}, 1)}
			p.object.UID, p.object.Namespace, p.object.Name = e.UID, e.Namespace, e.Name
			c.pods[e.UID] = p
		}
	}
	for uid := range c.pods {
		c.first[uid] = true
	}
	if len(c.first) == 0 {
		c.tell()
		return
	}
	for uid, p := range c.pods {
		c.lookAt(uid, p)
	}
}

// tried notes the end of a pod's first try. mu is held.
func (c *Controller) tried(uid string) {
	if c.told || !c.first[uid] {
		return
	}
	delete(c.first, uid)
	if len(c.first) == 0 {
		c.tell()
	}
}

// tell says that all pods are known. mu is held.
func (c *Controller) tell() {
	c.told = true
	c.work.Go(func() {
		if err := c.o.Manager.Told(); err != nil {
			c.o.Logger.Error("what an earlier run left in the kernel is not forgotten", "err", err)
		}
	})
}

// lookAt has a pod worked on, once there is something to decide from. mu is held.
func (c *Controller) lookAt(uid string, p *pod) {
	if c.run == nil || c.run.Err() != nil || !c.listed.pods || !c.listed.namespaces {
		return
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
	if !p.working {
		p.working = true
		ctx := c.run
		c.work.Go(func() { c.workOn(ctx, uid, p) })
	}
}
