// Package cluster brings up a lab for a benchmark, and says where its parts are.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Cluster is a running lab.
type Cluster struct {
	Dir          string `json:"-"` // of the run; config/ in it is what the lab follows
	ControlPlane struct{ PID int }
	Nodes        []struct {
		Name, NetNS string
		Agent       struct{ PID int }
	}
	Services []struct {
		Namespace, Name string
		ClusterIPs      []string
	}
	Pods []Pod

	name, bin string
}

// Pod is one of the lab's.
type Pod struct {
	Namespace, Name, NetNS string
	IPs                    []string
	Ready                  bool
	Containers             []struct {
		Name string
		PID  int
	}
}

// Up makes the cluster of the files given, by name.
func Up(ctx context.Context, bin string, files map[string]string) (*Cluster, error) {
	dir, err := os.MkdirTemp("", "fairlead-bench")
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir, name: fmt.Sprintf("bench-%d", os.Getpid()), bin: bin}
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		return nil, err
	}
	for name, text := range files {
		if err := c.Write(name, text); err != nil {
			return nil, err
		}
	}
	if out, err := c.fairlead(ctx, "up", "--detach", "--wait", "5m", filepath.Join(dir, "config")); err != nil {
		c.Down()
		return nil, fmt.Errorf("lab up: %w\n%s", err, out)
	}
	if err := c.Look(ctx); err != nil {
		c.Down()
		return nil, err
	}
	return c, nil
}

// Write saves a file of the cluster's YAML at once, whether it is new or not.
func (c *Cluster) Write(name, text string) error {
	tmp := filepath.Join(c.Dir, "saving")
	if err := os.WriteFile(tmp, []byte(text), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(c.Dir, "config", name))
}

func (c *Cluster) fairlead(ctx context.Context, verb string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "fairlead"), append([]string{"lab", verb, "--name", c.name}, args...)...)
	return cmd.CombinedOutput()
}

// Look reads anew what there is.
func (c *Cluster) Look(ctx context.Context) error {
	out, err := c.fairlead(ctx, "ps", "-o", "json")
	if err != nil {
		return fmt.Errorf("lab ps: %w\n%s", err, out)
	}
	return json.Unmarshal(out, c)
}

// Down ends everything, whatever became of the run.
func (c *Cluster) Down() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := c.fairlead(ctx, "down"); err != nil {
		fmt.Fprintf(os.Stderr, "bench: lab down: %v\n%s", err, out)
	}
	_ = os.RemoveAll(c.Dir)
}

// Pod finds a pod by the beginning of its name.
func (c *Cluster) Pod(namespace, name string) Pod {
	for _, p := range c.Pods {
		if p.Namespace == namespace && strings.HasPrefix(p.Name, name) {
			return p
		}
	}
	panic("no pod " + namespace + "/" + name) // of the benchmark's own YAML
}

// Service is a service's IPv4 address.
func (c *Cluster) Service(namespace, name string) string {
	for _, s := range c.Services {
		if s.Namespace == namespace && s.Name == name {
			return s.ClusterIPs[0]
		}
	}
	panic("no service " + namespace + "/" + name) // as above
}

// Agent is the process of a node's agent.
func (c *Cluster) Agent(node string) int {
	for _, n := range c.Nodes {
		if n.Name == node {
			return n.Agent.PID
		}
	}
	panic("no node " + node) // as above
}

// Ask reads a page inside a network namespace.
func Ask(ctx context.Context, ns, url string) (string, error) {
	out, err := exec.CommandContext(ctx, "nsenter", "--net="+ns, "curl", "-sf", "-m", "10", url).Output()
	return string(out), err
}
