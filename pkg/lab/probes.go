package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-mesh/fairlead/pkg/lab/probe"
	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// eager is how often a container is probed until it is ready for the first time:
// initial delays are for machines that are slower than their users' patience.
const eager = 200 * time.Millisecond

// probe asks again and again whether the container is ready, until it ends.
func (c *container) probe(ctx context.Context) {
	p := c.spec.ReadinessProbe
	timeout := time.Duration(cmp.Or(p.TimeoutSeconds, 1)) * time.Second
	period := time.Duration(cmp.Or(p.PeriodSeconds, 10)) * time.Second
	successes, failures := int32(0), int32(0)
	ready := false
	for {
		once, cancel := context.WithTimeout(ctx, timeout+time.Second)
		err := c.ask(once, p, timeout)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			successes, failures = successes+1, 0
		} else {
			successes, failures = 0, failures+1
		}
		switch {
		case successes >= cmp.Or(p.SuccessThreshold, 1):
			ready = true
		case failures >= cmp.Or(p.FailureThreshold, 3):
			ready = false
		}
		c.report(func(s *containerState) {
			s.Ready, s.Message = ready, ""
			if err != nil {
				s.Message = "readiness probe: " + err.Error()
			}
		})
		wait := period
		if !ready {
			wait = min(eager, period)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (c *container) ask(ctx context.Context, p *corev1.Probe, timeout time.Duration) error {
	if p.Exec != nil {
		return c.exec(ctx, p.Exec.Command)
	}
	request, err := probeRequest(&c.w.p.spec, p, first(c.w.p.addrs))
	if err != nil {
		return err
	}
	request.Timeout = timeout
	client := c.w.p.node.prober.get()
	if client == nil {
		return errors.New("the node's prober is being started")
	}
	return client.Ask(ctx, request)
}

// probeRequest is what the prober asks a pod at an address.
func probeRequest(spec *corev1.PodSpec, p *corev1.Probe, addr string) (probe.Request, error) {
	if p.TCPSocket != nil {
		port, err := portNumber(spec, p.TCPSocket.Port)
		return probe.Request{Address: net.JoinHostPort(cmp.Or(p.TCPSocket.Host, addr), port)}, err
	}
	get := p.HTTPGet
	port, err := portNumber(spec, get.Port)
	if err != nil {
		return probe.Request{}, err
	}
	scheme := "http"
	if get.Scheme == corev1.URISchemeHTTPS {
		scheme = "https"
	}
	path := get.Path
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	r := probe.Request{URL: scheme + "://" + net.JoinHostPort(cmp.Or(get.Host, addr), port) + path, Headers: map[string]string{}}
	for _, h := range get.HTTPHeaders {
		r.Headers[h.Name] = h.Value
	}
	return r, nil
}

func portNumber(spec *corev1.PodSpec, port intstr.IntOrString) (string, error) {
	if port.Type == intstr.Int {
		return strconv.Itoa(int(port.IntVal)), nil
	}
	for _, c := range spec.Containers {
		for _, p := range c.Ports {
			if p.Name == port.StrVal {
				return strconv.Itoa(int(p.ContainerPort)), nil
			}
		}
	}
	return "", fmt.Errorf("no port is named %q", port.StrVal)
}

// exec runs a probe's command in the pod.
func (c *container) exec(ctx context.Context, argv []string) error {
	spec := c.w.surroundings()
	spec.Env, spec.Dir, spec.Argv = c.w.environment(c.spec), c.spec.WorkingDir, argv
	cmd, err := sandbox.Start(spec, sandbox.Stdio{}, true)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if code, err := exitCode(cmd.Wait()); err != nil || code != 0 {
		return fmt.Errorf("%s ended with code %d", argv[0], code)
	}
	return nil
}

// probePorts are those that the kubelet may reach.
func probePorts(spec *corev1.PodSpec) []uint16 {
	var out []uint16
	for _, c := range spec.Containers {
		for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
			if p == nil {
				continue
			}
			var port *intstr.IntOrString
			switch {
			case p.HTTPGet != nil:
				port = &p.HTTPGet.Port
			case p.TCPSocket != nil:
				port = &p.TCPSocket.Port
			default:
				continue
			}
			if s, err := portNumber(spec, *port); err == nil {
				if n, err := strconv.ParseUint(s, 10, 16); err == nil {
					out = append(out, uint16(n))
				}
			}
		}
	}
	return out
}

// runProber keeps the node's prober alive from when the first probe needs it.
func (l *Lab) runProber(ctx context.Context, n *node) {
	select {
	case <-ctx.Done():
		return
	case <-n.prober.needed:
	}
	for ctx.Err() == nil {
		if err := l.proberOnce(ctx, n); err != nil && ctx.Err() == nil {
			l.log.Warn("the node's prober ended", "node", n.name, "err", err)
		}
		pause(ctx, minBackoff)
	}
}

// kubeletCgroup is where the node's prober runs.
func (l *Lab) kubeletCgroup(n *node) string {
	return filepath.Join(l.cgroup, "node-"+n.name, "kubelet")
}

func (l *Lab) proberOnce(ctx context.Context, n *node) error {
	cgroup := l.kubeletCgroup(n)
	if err := sandbox.MakeCgroup(cgroup); err != nil {
		return err
	}
	asks, askEnd, err := os.Pipe()
	if err != nil {
		return err
	}
	defer asks.Close()
	answerEnd, answers, err := os.Pipe()
	if err != nil {
		_ = askEnd.Close()
		return err
	}
	defer answerEnd.Close()
	log, err := openLog(LogFile(l.opts.Name, "prober/"+n.name))
	if err != nil {
		_, _ = askEnd.Close(), answers.Close()
		return err
	}
	defer log.Close()
	spec := sandbox.Spec{
		NetNS: n.host.NS().Path(), Cgroup: cgroup, Bare: true, Env: os.Environ(), Program: &sandbox.Program{Name: probe.Name},
	}
	cmd, err := sandbox.Start(spec, sandbox.Stdio{In: asks, Out: answers, Err: log}, true)
	_ = answers.Close()
	if err != nil {
		_ = askEnd.Close()
		return err
	}
	client := probe.NewClient(askEnd, answerEnd)
	n.prober.set(client)
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	err = cmd.Wait()
	n.prober.set(nil)
	_ = client.Close()
	return err
}
