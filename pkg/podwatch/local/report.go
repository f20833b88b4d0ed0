package local

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// What the annotation ambient.istio.io/redirection says of a pod, as Istio has it.
const (
	enabled = "enabled"
	pending = "pending" // it is to be captured, and is not yet
)

// annotate says on the pod what it is; "" takes the annotation off. Both pods and
// pods/status may change an annotation; the right to the latter allows less.
func (c *Controller) annotate(ctx context.Context, o *kube.Pod, value string) error {
	if o.Annotations[kube.Redirection] == value {
		return nil
	}
	var v any
	if value != "" {
		v = value
	}
	// With the uid a pod that has come in place of this one under its name is not meant.
	patch := map[string]any{"metadata": map[string]any{"uid": o.UID, "annotations": map[string]any{kube.Redirection: v}}}
	err := c.o.API.Patch(ctx, "/api/v1/namespaces/"+o.Namespace+"/pods/"+o.Name+"/status", patch)
	if kube.IsNotFound(err) || kube.IsConflict(err) {
		return nil // it is gone
	}
	return err
}

// report says in log, event and annotation that a pod is not as it is asked to be.
func (c *Controller) report(ctx context.Context, p *pod, problem error) {
	c.mu.Lock()
	object := p.object
	captured, _ := c.captures(&object)
	gone := p.gone
	c.mu.Unlock()
	c.o.Logger.Error("pod is not as asked; trying again", "pod", object.Namespace+"/"+object.Name, "uid", object.UID, "captured", captured, "err", problem)
	if gone || !captured {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, enrolling)
	defer cancel()
	if e, ok := c.o.Manager.Pod(object.UID); !ok || e.Status.State != podwatch.StateEnrolled {
		if err := c.annotate(ctx, &object, pending); err != nil {
			c.o.Logger.Debug("pod not annotated", "pod", object.Name, "err", err)
		}
	}
	now := time.Now().UTC().Format(time.RFC3339)
	event := map[string]any{
		"metadata":       map[string]any{"generateName": object.Name + ".", "namespace": object.Namespace},
		"involvedObject": map[string]any{"apiVersion": "v1", "kind": "Pod", "namespace": object.Namespace, "name": object.Name, "uid": object.UID},
		"type":           "Warning", "reason": "EnrolmentFailed", "message": problem.Error(),
		"source":         map[string]any{"component": "fairlead-node-agent", "host": c.o.Node},
		"firstTimestamp": now, "lastTimestamp": now, "count": 1,
	}
	if err := c.o.API.Create(ctx, "/api/v1/namespaces/"+object.Namespace+"/events", event, nil); err != nil {
		c.o.Logger.Debug("event not written", "pod", object.Name, "err", err)
	}
}

// ReleaseAll lets go of every captured pod, and says so on it where that may still
// be said. Call it after Run.
func (c *Controller) ReleaseAll(ctx context.Context) error {
	var errs []error
	for _, e := range c.o.Manager.Pods() {
		o := kube.Pod{Meta: kube.Meta{Name: e.Name, Namespace: e.Namespace, UID: e.UID, Annotations: kube.Annotations{kube.Redirection: enabled}}}
		if err := c.annotate(ctx, &o, ""); err != nil {
			c.o.Logger.Debug("pod still annotated", "pod", e.Key(), "err", err)
		}
		if !e.Captured {
			continue
		}
		p := e.Pod
		p.Captured = false
		_, err := c.o.Manager.Put(ctx, p)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// leadsElsewhere reports whether the path of a known pod's namespace is gone, or
// leads to another by now: its sandbox was made anew.
func leadsElsewhere(p *podwatch.Pod) bool {
	if _, err := os.Stat(p.NetNS); err != nil {
		return true
	}
	if p.Cookie == 0 {
		return false
	}
	ns, err := netns.Open(p.NetNS)
	if err != nil {
		return true
	}
	defer ns.Close()
	cookie, err := ns.Cookie()
	return err != nil || cookie != p.Cookie
}
