package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/fairlead-mesh/fairlead/pkg/podwatch"
)

// How long the agent is waited for. The kubelet gives a sandbox minutes.
const (
	patience  = 30 * time.Second
	farewell  = 5 * time.Second
	knocks    = 10 // while an agent takes over from another, none answers
	knockWait = 200 * time.Millisecond
)

// Plugin answers the container runtime. Results go to Out.
type Plugin struct {
	Out io.Writer
	// Log gets a line for each thing worth telling; the runtime logs it.
	Log io.Writer
}

// Add enrols a pod before its first process, where it is meant to be.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	if c.PrevResult == nil {
		return fmt.Errorf("%s must come after the plugin that connects pods: it got no result of one", Type)
	}
	box, err := sandbox(args)
	if err != nil {
		return err
	}
	if box.UID != "" && !slices.Contains(c.ExcludedNamespaces, box.Namespace) {
		if box.IPs, err = addresses(c.PrevResult); err != nil {
			return err
		}
		if err := p.add(c, box); err != nil {
			return fmt.Errorf("pod %s: %w", box.Key(), err)
		}
	}
	return c.PrevResult.PrintTo(p.Out)
}

func (p *Plugin) add(c *Config, box podwatch.Sandbox) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	agent := podwatch.NewClient(c.Socket)
	defer agent.Close()
	for knock := 1; ; knock++ {
		status, err := agent.AddSandbox(ctx, box)
		switch {
		case err == nil && status.State == podwatch.StateFailed:
			return errors.New(status.Error)
		case err == nil || !isDown(err):
			return err
		case knock < knocks:
			time.Sleep(knockWait) //nolint:forbidigo // nothing tells when an agent comes
			continue
		}
		captured, why := c.decide(ctx, box)
		if captured {
			return fmt.Errorf("it is to be captured (%s) and the node agent is down; it is held back until the agent is there: %w", why, err)
		}
		fmt.Fprintf(p.Log, "%s: the node agent is down; pod %s starts without it: %s\n", Type, box.Key(), why)
		return nil
	}
}

// Del tells the agent that the pod's sandbox ends. It never fails: an agent that is
// down learns of it from the API.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		fmt.Fprintln(p.Log, err)
		return nil
	}
	box, err := sandbox(args)
	if err != nil || box.UID == "" || slices.Contains(c.ExcludedNamespaces, box.Namespace) {
		return nil //nolint:nilerr // whatever was said of it, it ends
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	agent := podwatch.NewClient(c.Socket)
	defer agent.Close()
	if err := agent.RemoveSandbox(ctx, box); err != nil && !isDown(err) {
		fmt.Fprintf(p.Log, "%s: pod %s: %v\n", Type, box.Key(), err)
	}
	return nil
}

// Check fails for a pod that the agent means to capture and has not.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	c, err := parse(args.StdinData)
	if err != nil {
		return err
	}
	box, err := sandbox(args)
	if err != nil {
		return err
	}
	if box.UID == "" || slices.Contains(c.ExcludedNamespaces, box.Namespace) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), farewell)
	defer cancel()
	agent := podwatch.NewClient(c.Socket)
	defer agent.Close()
	pods, err := agent.List(ctx)
	if err != nil {
		return err
	}
	for _, e := range pods {
		if e.UID == box.UID && e.Status.State == podwatch.StateFailed {
			return fmt.Errorf("pod %s is not captured: %s", box.Key(), e.Status.Error)
		}
	}
	return nil
}

// sandbox reads the runtime's arguments; a sandbox that is no pod has no uid.
func sandbox(args *skel.CmdArgs) (podwatch.Sandbox, error) {
	var a podArgs
	if err := types.LoadArgs(args.Args, &a); err != nil {
		return podwatch.Sandbox{}, fmt.Errorf("arguments of the container runtime: %w", err)
	}
	box := podwatch.Sandbox{UID: string(a.K8S_POD_UID), Namespace: string(a.K8S_POD_NAMESPACE), Name: string(a.K8S_POD_NAME), NetNS: args.Netns}
	if box.Name != "" && box.UID == "" {
		return box, fmt.Errorf("pod %s: the container runtime does not say its uid (K8S_POD_UID); containerd does since 1.5, CRI-O since 1.19", box.Key())
	}
	return box, nil
}

// addresses are the pod's, of the plugins before this one.
func addresses(prev types.Result) ([]netip.Addr, error) {
	result, err := current.NewResultFromResult(prev)
	if err != nil {
		return nil, fmt.Errorf("result of the plugins before %s: %w", Type, err)
	}
	var out []netip.Addr
	for _, ip := range result.IPs {
		if ip.Interface != nil && *ip.Interface >= 0 && *ip.Interface < len(result.Interfaces) && result.Interfaces[*ip.Interface].Sandbox == "" {
			continue // the node's end
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			out = append(out, a.Unmap())
		}
	}
	return out, nil
}

// isDown reports that no agent answers.
func isDown(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
}
