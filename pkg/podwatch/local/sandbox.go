package local

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

var _ podwatch.Sandboxes = (*Controller)(nil)

// Add implements [podwatch.Sandboxes].
func (c *Controller) Add(ctx context.Context, s podwatch.Sandbox) (podwatch.Status, error) {
	object, err := c.lookUp(ctx, s)
	if err != nil {
		return podwatch.Status{}, err
	}
	labels, err := c.labelsOf(ctx, s.Namespace)
	if err != nil {
		return podwatch.Status{}, err
	}
	captured, why := c.o.Rule.Captures(podwatch.FactsOf(object), labels)
	if !captured {
		c.o.Logger.Debug("pod starts outside the mesh", "pod", s.Key(), "uid", s.UID, "why", why)
		return podwatch.Status{State: podwatch.StatePassthrough}, nil
	}
	if len(s.IPs) == 0 {
		return podwatch.Status{}, errors.New("the CNI plugins before this one gave the pod no address")
	}
	p := describe(object, sorted(s.IPs))
	if p.NetNS, p.Cookie, err = open(s.NetNS); err != nil {
		return podwatch.Status{}, err
	}
	if err := c.capture(ctx, p); err != nil {
		return podwatch.Status{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.pods[s.UID]; known != nil {
		c.lookAt(s.UID, known) // to say so on the pod
	} else if c.run != nil {
		c.put(*object)
	}
	e, _ := c.o.Manager.Pod(p.UID)
	return e.Status, nil
}

// Remove implements [podwatch.Sandboxes].
func (c *Controller) Remove(ctx context.Context, s podwatch.Sandbox) error {
	e, ok := c.o.Manager.Pod(s.UID)
	if !ok {
		return nil
	}
	if s.NetNS != "" {
		path, cookie, err := open(s.NetNS)
		if err == nil && e.Cookie != 0 && cookie != e.Cookie || err != nil && path != "" && filepath.Clean(e.NetNS) != path {
			return nil // it has another sandbox by now
		}
	}
	return c.o.Manager.Delete(ctx, s.UID)
}

// lookUp returns the pod as the API has it.
func (c *Controller) lookUp(ctx context.Context, s podwatch.Sandbox) (*kube.Pod, error) {
	c.mu.Lock()
	if p := c.pods[s.UID]; p != nil && !p.gone && p.object.Name == s.Name {
		object := p.object
		c.mu.Unlock()
		return &object, nil
	}
	c.mu.Unlock()
	var o kube.Pod
	if err := c.o.API.Get(ctx, "/api/v1/namespaces/"+s.Namespace+"/pods/"+s.Name, &o); err != nil {
		return nil, fmt.Errorf("pod %s: %w", s.Key(), err)
	}
	if o.UID != s.UID && uidOnNode(&o) != s.UID {
		return nil, fmt.Errorf("pod %s has uid %s by now, not %s", s.Key(), o.UID, s.UID)
	}
	if o.Spec.NodeName != c.o.Node {
		return nil, fmt.Errorf("pod %s is on node %q, not on this one, %q", s.Key(), o.Spec.NodeName, c.o.Node)
	}
	return &o, nil
}

func (c *Controller) labelsOf(ctx context.Context, namespace string) (map[string]string, error) {
	c.mu.Lock()
	labels, ok := c.namespaces[namespace]
	c.mu.Unlock()
	if ok {
		return labels, nil
	}
	var n kube.Namespace
	if err := c.o.API.Get(ctx, "/api/v1/namespaces/"+namespace, &n); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", namespace, err)
	}
	return n.Labels, nil
}

// open returns the agent's path of a namespace that the runtime named, and its
// cookie. Runtimes name it under /var/run, which is /run on the node.
func open(path string) (string, uint64, error) {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		path = "/run/" + rest
	}
	path = filepath.Clean(path)
	ns, err := netns.Open(path)
	if err != nil {
		return path, 0, err
	}
	defer ns.Close()
	cookie, err := ns.Cookie()
	return path, cookie, err
}
