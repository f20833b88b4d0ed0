package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
	"github.com/fairlead-mesh/fairlead/pkg/redirect"
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

	// mu guards below.
	mu   sync.Mutex
	pods map[string]*enrolled
}

type enrolled struct {
	pod   *redirect.Pod
	proxy *ztunnel.Proxy
}

// Enroll implements [podwatch.Enroller].
func (e *enroller) Enroll(ctx context.Context, p podwatch.Pod) (uint64, error) {
	pod, err := e.redirector.Enroll(ctx, redirect.PodSpec{UID: p.UID, NetNS: p.NetNS, Addrs: p.IPs, HostInterface: p.HostInterface})
	if err != nil {
		return 0, err
	}
	proxy, err := ztunnel.New(e.options, ztunnel.PodInfo{UID: p.UID, Namespace: p.Namespace, Name: p.Name, ServiceAccount: p.ServiceAccount, Addrs: p.IPs}, pod)
	if err != nil {
		return 0, errors.Join(err, pod.Close())
	}
	e.mu.Lock()
	e.pods[p.UID] = &enrolled{pod, proxy}
	e.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		n, err := proxy.ResetOlder(ctx)
		if err != nil {
			e.log.Warn("connections older than the enrolment were not examined", "pod", p.Key(), "err", err)
		} else if n > 0 {
			e.log.Info("connections older than the enrolment were reset: policy denies them", "pod", p.Key(), "count", n)
		}
	}()
	return pod.Cookie(), nil
}

// Remove implements [podwatch.Enroller]. What a pod that lives on had open may
// end; its new connections go around the agent at once.
func (e *enroller) Remove(_ context.Context, uid string, gone bool) error {
	e.mu.Lock()
	p := e.pods[uid]
	delete(e.pods, uid)
	e.mu.Unlock()
	if p == nil {
		return nil
	}
	err := p.pod.Close()
	timeout := e.drain
	if gone {
		timeout = 0
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		p.proxy.Drain(ctx)
	}()
	return err
}

// stop ends all proxies and keeps their pods captured: refused, until the next
// agent takes over.
func (e *enroller) stop() {
	e.mu.Lock()
	all := e.pods
	e.pods = map[string]*enrolled{}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), e.drain)
	defer cancel()
	var group sync.WaitGroup
	for uid, p := range all {
		group.Go(func() {
			if err := p.pod.Leave(); err != nil {
				e.log.Warn("leave pod", "uid", uid, "err", err)
			}
			p.proxy.Drain(ctx)
		})
	}
	group.Wait()
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
