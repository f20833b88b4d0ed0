package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
	"github.com/fairlead-mesh/fairlead/pkg/lab/token"
	"github.com/fairlead-mesh/fairlead/pkg/netns"
	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

const (
	controlPlanePort = 15012
	readinessPort    = 15021
	agentNamespace   = "istio-system"
	agentAccount     = "ztunnel"
)

// agentPod is the name by which a node's agent presents itself.
func agentPod(node string) string { return agentAccount + "-" + node }

func (l *Lab) prepareTokens() error {
	var err error
	if l.signer, err = token.NewSigner(); err != nil {
		return err
	}
	key, err := l.signer.PublicKey()
	if err != nil {
		return err
	}
	return os.WriteFile(l.place.tokenKey(), key, 0o600)
}

func (l *Lab) writeToken(node string) error {
	return l.signer.Write(l.place.token(node), token.Subject{
		Namespace: agentNamespace, ServiceAccount: agentAccount, ServiceAccountUID: "fairlead-lab-" + agentAccount,
		Pod: agentPod(node), PodUID: "fairlead-lab-" + agentPod(node), Node: node,
	}, time.Now())
}

// tokenFile is a node's token.
func (l *Lab) tokenFile(node string) string {
	if l.opts.TokenDir != "" {
		return filepath.Join(l.opts.TokenDir, node)
	}
	return l.place.token(node)
}

// rootCert is the file of the certificate that the control plane is known by.
func (l *Lab) rootCert() string {
	if l.opts.ControlPlane != "" {
		return l.opts.ControlPlaneRoot
	}
	return l.place.rootCert()
}

// startControlPlane starts the product's own, or the way to another.
func (l *Lab) startControlPlane(ctx context.Context, actor func(func(context.Context) error)) error {
	switch {
	case l.opts.NoMesh:
		return nil
	case l.opts.ControlPlane != "":
		return l.relayTo(l.opts.ControlPlane, actor)
	}
	l.controlPlane = &daemon{
		name: "control-plane", lab: l, log: l.log, logFile: LogFile(l.opts.Name, "control-plane"), orders: newMailbox[bool](),
		spec: sandbox.Spec{
			Bare: true, NetNS: l.controlHost.NS().Path(), Cgroup: filepath.Join(l.cgroup, "control-plane"), Env: os.Environ(),
			Argv: append([]string{
				filepath.Join(l.opts.Binaries, "control-plane"),
				"--config-dir", l.opts.Dir, "--derived-dir", derivedDir(l.opts.Dir), "--status-dir", statusDir(l.opts.Dir),
				"--state-dir", l.place.in("control-plane"), "--listen", "[::]:" + strconv.Itoa(controlPlanePort),
				"--cluster-id", clusterID, "--token-keys", l.place.tokenKey(), "--node-accounts", agentNamespace + "/" + agentAccount,
				"--root-cert-out", l.place.rootCert(), "--deploy-dir", deployDir(l.opts.Dir), "--advertise-address", l.controlPlaneAddr().String(),
				"--advertise-name", l.opts.ControlPlaneName,
			}, l.opts.ControlPlaneArgs...),
		},
		answers: func(ctx context.Context) error {
			return untilDialled(ctx, l.controlHost.NS(), net.JoinHostPort("localhost", strconv.Itoa(controlPlanePort)))
		},
		onUp: func() {}, onDown: func() {}, state: "is starting",
	}
	l.workers.Go(func() { l.controlPlane.run(ctx) })
	return nil
}

// startAgent starts a node's agent. The node is being made: nobody else sees it.
func (l *Lab) startAgent(ctx context.Context, n *node) error {
	state, certs, socket := l.place.in("agents", n.name), l.place.certs(n.name), l.place.in("enrol", n.name+".sock")
	for _, d := range []string{state, certs} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return err
		}
	}
	// Before the agent, which knows probes by where they come from.
	if err := sandbox.MakeCgroup(l.kubeletCgroup(n)); err != nil {
		return err
	}
	n.enrol = podwatch.NewClient(socket)
	address := l.controlPlaneAddr().String()
	n.agent = &daemon{
		name: "agent/" + n.name, lab: l, log: l.log, logFile: LogFile(l.opts.Name, "agent/"+n.name), orders: newMailbox[bool](),
		spec: sandbox.Spec{
			Bare: true, NetNS: n.host.NS().Path(), Cgroup: filepath.Join(l.cgroup, "node-"+n.name, "agent"), Env: os.Environ(),
			Argv: append([]string{
				filepath.Join(l.opts.Binaries, "node-agent"),
				"--node", n.name, "--instance", l.place.instance(n.name), "--cluster-id", clusterID, "--trust-domain", l.opts.TrustDomain,
				"--xds-address", address, "--ca-address", address, "--xds-server-name", l.opts.ControlPlaneName,
				"--root-cert", l.rootCert(), "--token-file", l.tokenFile(n.name), "--enrol-socket", socket,
				"--state-dir", state, "--cert-dir", certs, "--kubelet-cgroup", l.kubeletCgroup(n), "--access-log", "json",
				"--pod-name", agentPod(n.name), "--pod-namespace", agentNamespace,
			}, l.opts.AgentArgs...),
		},
		prepared: func(ctx context.Context) error { return waitForFile(ctx, l.rootCert()) },
		answers:  func(ctx context.Context) error { return l.agentAnswers(ctx, n) },
		onUp: func() {
			n.agentEpoch.bump()
			l.nodeActor(ctx, n, func(ctx context.Context) { l.agentReadiness(ctx, n) })
		},
		onDown: func() { n.agentReady = false },
		state:  "is starting",
	}
	l.nodeActor(ctx, n, n.agent.run)
	return nil
}

// agentAnswers waits until the agent takes pods.
func (l *Lab) agentAnswers(ctx context.Context, n *node) error {
	for {
		if _, err := n.enrol.List(ctx); err == nil {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// agentReadiness tells the agent which pods there are, and waits until it says
// that it is ready.
func (l *Lab) agentReadiness(ctx context.Context, n *node) {
	if l.snapshot(ctx, n) != nil {
		return
	}
	client := n.http()
	url := fmt.Sprintf("http://localhost:%d/healthz/ready", readinessPort)
	for {
		res, err := client.Get(url)
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				l.do(func() { n.agentReady = n.agent.up })
				return
			}
		}
		if !pause(ctx, 50*time.Millisecond) {
			return
		}
	}
}

// untilDialled waits until somebody listens.
func untilDialled(ctx context.Context, ns *netns.NS, address string) error {
	for {
		err := ns.Do(func() error {
			c, err := net.DialTimeout("tcp", address, time.Second)
			if err != nil {
				return err
			}
			return c.Close()
		})
		if err == nil {
			return nil
		}
		if !pause(ctx, 20*time.Millisecond) {
			return ctx.Err()
		}
	}
}

// renewTokens well before they end.
func (l *Lab) renewTokens(ctx context.Context) {
	var names []string
	if l.ask(ctx, func() {
		for name := range l.nodes {
			names = append(names, name)
		}
	}) != nil {
		return
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, l.writeToken(name))
	}
	var pods []*pod
	if l.ask(ctx, func() { pods = l.sortedPods() }) != nil {
		return
	}
	for _, p := range pods {
		if !p.deleting && len(volumesOf(&p.spec)) > 0 {
			errs = append(errs, l.writePodToken(p, filepath.Join(l.place.in("pods", p.uid), "volumes")))
		}
	}
	l.logIf(errors.Join(errs...))
}
