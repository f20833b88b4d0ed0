package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// cluster is a running lab.
type cluster struct {
	o         options
	name, dir string
	Nodes     []struct {
		Name, NetNS string
		Agent       struct{ PID int }
	}
	Pods []struct {
		Namespace, Name, NetNS string
		IPs                    []string
	}
	processes []*exec.Cmd
}

// up makes the cluster of the YAML given.
func up(ctx context.Context, o options, yaml string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "fairlead-bench")
	if err != nil {
		return nil, err
	}
	c := &cluster{o: o, name: fmt.Sprintf("bench-%d", os.Getpid()), dir: dir}
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		return nil, err
	}
	if err := c.write(yaml); err != nil {
		return nil, err
	}
	if out, err := c.fairlead(ctx, "up", "--detach", "--wait", "5m", filepath.Join(dir, "config")); err != nil {
		c.down()
		return nil, fmt.Errorf("lab up: %w\n%s", err, out)
	}
	if err := c.look(ctx); err != nil {
		c.down()
		return nil, err
	}
	return c, nil
}

func (c *cluster) write(yaml string) error {
	return os.WriteFile(filepath.Join(c.dir, "config", "cluster.yaml"), []byte(yaml), 0o644)
}

func (c *cluster) fairlead(ctx context.Context, verb string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(c.o.bin, "fairlead"), append([]string{"lab", verb, "--name", c.name}, args...)...)
	return cmd.CombinedOutput()
}

func (c *cluster) look(ctx context.Context) error {
	out, err := c.fairlead(ctx, "ps", "-o", "json")
	if err != nil {
		return fmt.Errorf("lab ps: %w\n%s", err, out)
	}
	return json.Unmarshal(out, c)
}

// down ends everything, whatever became of the run.
func (c *cluster) down() {
	for _, p := range c.processes {
		_ = p.Process.Kill()
		_ = p.Wait() // killed
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := c.fairlead(ctx, "down"); err != nil {
		fmt.Fprintf(os.Stderr, "bench: lab down: %v\n%s", err, out)
	}
	_ = os.RemoveAll(c.dir)
}

// pod returns a pod's namespace and IPv4 address.
func (c *cluster) pod(namespace, name string) (ns, ip string) {
	for _, p := range c.Pods {
		if p.Namespace == namespace && p.Name == name {
			return p.NetNS, p.IPs[0]
		}
	}
	panic("no pod " + namespace + "/" + name) // of our own YAML
}

func (c *cluster) agent(node string) int {
	for _, n := range c.Nodes {
		if n.Name == node {
			return n.Agent.PID
		}
	}
	panic("no node " + node) // of our own YAML
}

// inside makes a command of this program's parts, or of the machine's, in a namespace.
func inside(ctx context.Context, ns string, argv ...string) *exec.Cmd {
	if parts[argv[0]] != nil {
		self, err := os.Executable()
		if err != nil {
			panic(err) // Linux has it
		}
		argv = append([]string{self}, argv...)
	}
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + ns}, argv...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start runs a part until the cluster goes down, and returns its process id.
// It is ready when it says so, or with a port when that is listened on.
func (c *cluster) start(ctx context.Context, ns string, port int, argv ...string) (int, error) {
	cmd := inside(ctx, ns, argv...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	c.processes = append(c.processes, cmd)
	if parts[argv[0]] != nil {
		if line, _ := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
			return 0, fmt.Errorf("%v: %w", argv, errNotReady)
		}
		return cmd.Process.Pid, nil
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); {
		if exec.CommandContext(ctx, "nsenter", "--net="+ns, "sh", "-c", fmt.Sprintf("ss -Hltn sport = :%d | grep -q .", port)).Run() == nil {
			return cmd.Process.Pid, nil
		}
	}
	return 0, fmt.Errorf("%v: %w", argv, errNotReady)
}

// run runs a load and returns what it saw.
func runLoad(ctx context.Context, ns string, args ...string) (m measured, err error) {
	cmd := inside(ctx, ns, append([]string{"load"}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(out, &m)
}

// ask reads a page of an agent, from its node.
func ask(ctx context.Context, ns, url string) (string, error) {
	out, err := exec.CommandContext(ctx, "nsenter", "--net="+ns, "curl", "-sf", "-m", "10", url).Output()
	return string(out), err
}

func hostPort(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }
