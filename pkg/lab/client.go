package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/lab/sandbox"
)

// Client talks to a running lab.
type Client struct {
	Name string
	http *http.Client
}

// Connect finds a running lab. Without a name there must be only one.
func Connect(name string) (*Client, error) {
	if name == "" {
		running, left, err := Labs()
		switch {
		case errors.Is(err, os.ErrPermission):
			return nil, errors.New("labs belong to root: become root first")
		case err != nil:
			return nil, err
		case len(running) == 0 && len(left) > 0:
			return nil, fmt.Errorf("no lab is running; %s was killed: fairlead lab down --name %s cleans up", left[0], left[0])
		case len(running) == 0:
			return nil, errors.New("no lab is running: fairlead lab up DIR starts one")
		case len(running) > 1:
			return nil, fmt.Errorf("several labs are running: say which by --name: %s", strings.Join(running, ", "))
		}
		name = running[0]
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	var d net.Dialer
	socket := place{name}.socket()
	return &Client{Name: name, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}, nil
}

// View is the lab as it is now.
func (c *Client) View(ctx context.Context) (View, error) {
	var v View
	return v, c.do(ctx, http.MethodGet, "/v1/lab", nil, &v)
}

// Entrance is a sandbox in a pod, or on a node, without a program.
func (c *Client) Entrance(ctx context.Context, target, container string) (sandbox.Spec, error) {
	var s sandbox.Spec
	return s, c.do(ctx, http.MethodGet, "/v1/entrance", url.Values{"target": {target}, "container": {container}}, &s)
}

// Find is the pod that a name means.
func (c *Client) Find(ctx context.Context, target string) (PodView, error) {
	var v PodView
	return v, c.do(ctx, http.MethodGet, "/v1/find", url.Values{"target": {target}}, &v)
}

// Kill ends a process of the mesh, which then stays down; graceful asks it to.
func (c *Client) Kill(ctx context.Context, target string, graceful bool) error {
	q := url.Values{"target": {target}}
	if graceful {
		q.Set("signal", "TERM")
	}
	if err := c.do(ctx, http.MethodPost, "/v1/kill", q, nil); err != nil {
		return err
	}
	return c.until(ctx, target, func(pid int) bool { return pid == 0 })
}

// Start starts a process of the mesh that was killed.
func (c *Client) Start(ctx context.Context, target string) error {
	if err := c.do(ctx, http.MethodPost, "/v1/start", url.Values{"target": {target}}, nil); err != nil {
		return err
	}
	return c.until(ctx, target, func(pid int) bool { return pid != 0 })
}

// until waits for a process of the mesh to be there, or not to be.
func (c *Client) until(ctx context.Context, target string, want func(pid int) bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		v, err := c.View(ctx)
		if err != nil {
			return err
		}
		if want(v.pidOf(target)) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (v *View) pidOf(target string) int {
	if target == "control-plane" && v.ControlPlane != nil {
		return v.ControlPlane.PID
	}
	for _, n := range v.Nodes {
		if n.Agent != nil && target == "agent/"+n.Name {
			return n.Agent.PID
		}
	}
	return 0
}

// DeletePod ends a pod; what wants it makes another.
func (c *Client) DeletePod(ctx context.Context, target string) (PodView, error) {
	var v PodView
	return v, c.do(ctx, http.MethodDelete, "/v1/pod", url.Values{"target": {target}}, &v)
}

// Down ends a lab and waits until nothing of it is left; also for one that was
// killed, or that never was.
func Down(ctx context.Context, name string) error {
	c, err := Connect(name)
	if err != nil {
		return err
	}
	// A lab that does not answer was killed, or is on its way: Clean finds out.
	_ = c.do(ctx, http.MethodPost, "/v1/down", nil, nil)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := Clean(ctx, name)
		if !errors.Is(err, errRunning) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("lab %s does not answer: %w", c.Name, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return fmt.Errorf("lab %s: %w", c.Name, err)
	}
	if res.StatusCode != http.StatusOK {
		var f failure
		if json.Unmarshal(body, &f) != nil || f.Error == "" {
			f.Error = res.Status
		}
		return errors.New(f.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(body, out)
}
