package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/handover"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
	"github.com/fairlead-mesh/fairlead/pkg/telemetry"
	"github.com/fairlead-mesh/fairlead/pkg/ztunnel"
)

// Where the engines meet: neither knows the other.
var (
	_ ztunnel.PodSockets = (*redirect.Pod)(nil)
	_ podwatch.Enroller  = (*enroller)(nil)
)

// enroller captures pods and serves their connections.
type enroller struct {
	redirector *redirect.Redirector
	options    ztunnel.Options
	log        *slog.Logger
	drain      time.Duration
	tcpOnly    bool // what is not TCP is dropped
	// inherited are the listeners of another agent, by the pod's cookie.
	inherited map[uint64][]*os.File

	// work is the proxies that end; leaving ends with the agent.
	work    sync.WaitGroup
	leaving context.Context
	leave   context.CancelFunc

	// mu guards below.
	mu   sync.Mutex
	pods map[string]*enrolled
	// retired are pods that another agent serves: what they had open goes on.
	retired []*enrolled
	// departed are pods that left the mesh, by uid: what they had open goes on.
	departed map[string]*departure
}

// lingering is how long a pod that left the mesh takes tunnels: its peers hear of
// it later than its agent.
const lingering = 5 * time.Second

// departure is a pod that left the mesh and lives on.
type departure struct {
	pod *redirect.Pod
	cut context.CancelFunc // ends what it had open
}

type enrolled struct {
	pod   *redirect.Pod
	proxy *ztunnel.Proxy
}

func newEnroller(r *redirect.Redirector, o ztunnel.Options, drain time.Duration, tcpOnly bool, log *slog.Logger) *enroller {
	e := &enroller{redirector: r, options: o, log: log, drain: drain, tcpOnly: tcpOnly, pods: map[string]*enrolled{}, departed: map[string]*departure{}}
	e.leaving, e.leave = context.WithCancel(context.Background())
	return e
}

// Enroll implements [podwatch.Enroller].
func (e *enroller) Enroll(ctx context.Context, p podwatch.Pod) (uint64, error) {
	e.mu.Lock()
	if d := e.departed[p.UID]; d != nil {
		d.pod.Deafen() // it comes back: the new enrolment listens
	}
	e.mu.Unlock()
	shared := e.inherit(p.NetNS)
	pod, err := e.redirector.Enroll(ctx, redirect.PodSpec{
		UID: p.UID, NetNS: p.NetNS, Cookie: p.Cookie, Addrs: p.IPs, HostInterface: p.HostInterface, TCPOnly: e.tcpOnly, Listeners: shared,
	})
	if err != nil {
		return 0, err
	}
	proxy, err := ztunnel.New(e.options, ztunnel.PodInfo{UID: p.UID, Namespace: p.Namespace, Name: p.Name, ServiceAccount: p.ServiceAccount, Addrs: p.IPs, TakenOver: shared != nil}, pod)
	if err != nil {
		return 0, errors.Join(err, pod.Close())
	}
	e.mu.Lock()
	e.pods[p.UID] = &enrolled{pod, proxy}
	e.mu.Unlock()
	e.log.Info("pod enrolled", "pod", p.Key(), "uid", p.UID, "cookie", pod.Cookie())
	return pod.Cookie(), nil
}

// inherit returns the listeners that another agent has in a namespace, once.
func (e *enroller) inherit(path string) []*os.File {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.inherited) == 0 {
		return nil
	}
	ns, err := netns.Open(path)
	if err != nil {
		return nil // the enrolment says why
	}
	defer ns.Close()
	cookie, err := ns.Cookie()
	if err != nil {
		return nil
	}
	files := e.inherited[cookie]
	delete(e.inherited, cookie)
	return files
}

// hand returns the listeners of all pods, for the next agent.
func (e *enroller) hand() ([]handover.Sockets, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []handover.Sockets
	for _, p := range e.pods {
		fds, err := p.pod.Listeners()
		if err != nil {
			return out, err
		}
		out = append(out, handover.Sockets{Cookie: p.pod.Cookie(), FDs: fds})
	}
	return out, nil
}

// retire takes no more connections: the next agent does. Those there are go on until
// their end, or the agent's.
func (e *enroller) retire() {
	e.mu.Lock()
	all := e.pods
	e.pods = map[string]*enrolled{}
	for _, p := range all {
		e.retired = append(e.retired, p)
	}
	e.mu.Unlock()
	for uid, p := range all {
		e.work.Go(func() {
			p.proxy.Drain(e.leaving)
			if err := p.pod.Leave(); err != nil {
				e.log.Warn("leave pod", "uid", uid, "err", err)
			}
		})
	}
}

// Remove implements [podwatch.Enroller]. New connections of a pod that lives on
// go around the agent at once; what it had open goes on until its end.
func (e *enroller) Remove(_ context.Context, uid string, gone bool) error {
	e.mu.Lock()
	p, d := e.pods[uid], e.departed[uid]
	delete(e.pods, uid)
	delete(e.departed, uid)
	e.mu.Unlock()
	if d != nil {
		d.cut()
	}
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(e.leaving)
	if gone {
		cancel()
	}
	err := p.pod.Release(ctx)
	if !gone {
		e.mu.Lock()
		e.departed[uid] = &departure{p.pod, cancel}
		e.mu.Unlock()
	}
	e.work.Go(func() {
		defer cancel()
		select {
		case <-ctx.Done():
		case <-time.After(lingering):
		}
		p.proxy.Drain(ctx)
		if err := p.pod.Close(); err != nil {
			e.log.Warn("pod not closed", "uid", uid, "err", err)
		}
	})
	e.log.Info("pod not enrolled any more", "uid", uid, "gone", gone)
	return err
}

// Settle implements [podwatch.Enroller].
func (e *enroller) Settle() error { return e.redirector.Retain() }

// run ends all proxies when ctx ends, and keeps their pods captured: refused,
// until the next agent takes over.
func (e *enroller) run(ctx context.Context) error {
	<-ctx.Done()
	e.mu.Lock()
	all := e.pods
	e.pods = map[string]*enrolled{}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.drain)
	defer cancel()
	stop := context.AfterFunc(ctx, e.leave)
	defer stop()
	for uid, p := range all {
		e.work.Go(func() {
			p.proxy.Drain(ctx)
			if err := p.pod.Leave(); err != nil {
				e.log.Warn("leave pod", "uid", uid, "err", err)
			}
		})
	}
	e.work.Wait()
	return nil
}

// proxies lists what is served, by uid.
func (e *enroller) proxies() map[string]*ztunnel.Proxy {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make(map[string]*ztunnel.Proxy, len(e.pods))
	for uid, p := range e.pods {
		out[uid] = p.proxy
	}
	return out
}

// verdicts are the kernel's, by pod.
func (e *enroller) verdicts() []telemetry.PodVerdict {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []telemetry.PodVerdict
	for _, p := range e.pods {
		info := p.proxy.Info()
		for _, v := range p.pod.Verdicts() {
			out = append(out, telemetry.PodVerdict{Namespace: info.Namespace, Pod: info.Name, Verdict: telemetry.Verdict(v)})
		}
	}
	return out
}
