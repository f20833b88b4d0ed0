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
	"strconv"
	"syscall"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
)

// running is a lab, and what was started in it.
type running struct {
	*cluster.Cluster
	o         options
	processes []*exec.Cmd
}

// up makes the cluster of the YAML given.
func up(ctx context.Context, o options, yaml string) (*running, error) {
	c, err := cluster.Up(ctx, o.bin, map[string]string{"cluster.yaml": yaml})
	if err != nil {
		return nil, err
	}
	return &running{Cluster: c, o: o}, nil
}

// down ends everything, whatever became of the run.
func (c *running) down() {
	for _, p := range c.processes {
		_ = p.Process.Kill()
		_ = p.Wait() // killed
	}
	c.Down()
}

// pod returns a pod's namespace and IPv4 address.
func (c *running) pod(namespace, name string) (ns, ip string) {
	p := c.Pod(namespace, name)
	return p.NetNS, p.IPs[0]
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
func (c *running) start(ctx context.Context, ns string, port int, argv ...string) (int, error) {
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

func hostPort(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }
