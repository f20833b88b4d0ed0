package local

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch/hostproc"
)

// errNotYet says that the pod's network is not there, or is not any more, which is
// no failure: its sandbox is being made or ends.
var errNotYet = errors.New("the pod has no network yet")

// workOn makes a pod as it is asked for, again and again until that has worked and
// nothing has changed meanwhile.
func (c *Controller) workOn(ctx context.Context, uid string, p *pod) {
	delay, told, since := firstRetry, "", time.Now()
	for {
		select {
		case <-p.changed:
		default:
		}
		c.slots <- struct{}{}
		again, err := c.make(ctx, uid, p)
		<-c.slots
		late := errors.Is(err, errNotYet) && time.Since(since) > lastRetry
		if err != nil && ctx.Err() == nil && (!errors.Is(err, errNotYet) || late) && err.Error() != told {
			told = err.Error()
			c.report(ctx, p, err)
		}
		c.mu.Lock()
		c.tried(uid)
		if !again && told != "" && c.told {
			c.tell() // its failure kept what earlier runs left in the kernel from being forgotten
		}
		if ctx.Err() != nil || !again && len(p.changed) == 0 {
			p.working = false
			if p.gone && err == nil && c.pods[uid] == p {
				delete(c.pods, uid)
			}
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		if !again {
			delay, told, since = firstRetry, "", time.Now()
			continue
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
		case <-p.changed:
			p.changed <- struct{}{}
		case <-timer.C:
			delay = min(2*delay, lastRetry)
		}
		timer.Stop()
	}
}

// make does once what is asked for. again says that it is to be tried again.
func (c *Controller) make(ctx context.Context, uid string, p *pod) (again bool, err error) {
	c.mu.Lock()
	object, gone := p.object, p.gone
	captured, why := c.captures(&object)
	c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, enrolling)
	defer cancel()
	entry, known := c.o.Manager.Pod(uid)
	switch {
	case gone || object.Finished():
		err = c.o.Manager.Delete(ctx, uid)
	case captured:
		err = c.enrol(ctx, &object, entry)
		if err != nil && object.DeletionTimestamp != "" && !known {
			return false, nil // it ends: there is nothing to capture any more
		}
	default:
		if known && entry.Captured {
			c.o.Logger.Info("pod leaves the mesh", "pod", entry.Key(), "uid", uid, "why", why)
		}
		err = c.release(ctx, &object, entry.Pod, known)
	}
	return err != nil, err
}

// captures applies the rule; mu is held.
func (c *Controller) captures(o *kube.Pod) (bool, string) {
	return c.o.Rule.Captures(podwatch.FactsOf(o), c.namespaces[o.Namespace])
}

// enrol captures a pod that runs, unless it is, and says so on it.
func (c *Controller) enrol(ctx context.Context, o *kube.Pod, known podwatch.Entry) error {
	ips := sorted(o.IPs())
	if len(ips) == 0 {
		if known.Status.State == podwatch.StateEnrolled { // by the CNI plugin, ahead of the kubelet's report
			return c.annotate(ctx, o, enabled)
		}
		return nil // the next report of the kubelet has them
	}
	p := describe(o, ips)
	if known.Captured && slices.Equal(sorted(known.IPs), ips) && !leadsElsewhere(&known.Pod) {
		p.NetNS, p.Cookie, p.IPs, p.HostInterface = known.NetNS, known.Cookie, known.IPs, known.HostInterface
	} else {
		found, err := c.o.Finder.Find(uidOnNode(o))
		if errors.Is(err, hostproc.ErrNoProcess) {
			return errNotYet
		}
		if err != nil {
			return err
		}
		p.NetNS, p.Cookie = found.Path, found.Cookie
	}
	if err := c.capture(ctx, p); err != nil {
		return err
	}
	return c.annotate(ctx, o, enabled)
}

// capture is one try.
func (c *Controller) capture(ctx context.Context, p podwatch.Pod) error {
	if err := p.Validate(); err != nil {
		return fmt.Errorf("pod %s: %w", p.Key(), err)
	}
	if e, ok := c.o.Manager.Pod(p.UID); ok && e.Status.State == podwatch.StateEnrolled && e.Equal(&p) {
		return nil
	}
	_, err := c.o.Manager.Put(ctx, p)
	c.o.Observe(err)
	return err
}

// release lets a pod go that lives on: the control plane hears of it first, so that
// none sends what nobody takes.
func (c *Controller) release(ctx context.Context, o *kube.Pod, known podwatch.Pod, isKnown bool) error {
	if err := c.annotate(ctx, o, ""); err != nil {
		return err
	}
	if !isKnown || !known.Captured {
		return nil
	}
	timer := time.NewTimer(withdrawn)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	known.Captured = false
	_, err := c.o.Manager.Put(ctx, known)
	return err
}

func describe(o *kube.Pod, ips []netip.Addr) podwatch.Pod {
	account := o.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	return podwatch.Pod{UID: o.UID, Namespace: o.Namespace, Name: o.Name, ServiceAccount: account, IPs: ips, Captured: true}
}

// staticUID is a static pod's: the hash of its manifest, which is no uid of the API's.
var staticUID = regexp.MustCompile(`^[0-9a-f]{32}$`)

// uidOnNode is the uid by which the kubelet knows the pod: of a static one it is not
// the API's. The annotation alone is no proof: with it, who may create pods would name another's
// pod, whose network would be captured for theirs.
func uidOnNode(o *kube.Pod) string {
	if hash := o.Annotations[kube.ConfigHash]; staticUID.MatchString(hash) && o.Annotations[kube.ConfigMirror] == hash {
		return hash
	}
	return o.UID
}

func sorted(ips []netip.Addr) []netip.Addr {
	out := slices.Clone(ips)
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}
