package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/test/bench/cluster"
	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// What the agents need beside two open files for each relay.
const otherFiles = 300

// mostRelays raises the limit of open files as far as the machine allows, for this
// process and what it starts, and returns how many relays one agent can have, up to want.
func mostRelays(want int) (int, error) {
	limit := unix.Rlimit{Cur: uint64(2*want + otherFiles), Max: uint64(2*want + otherFiles)}
	var is unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &is); err != nil {
		return 0, err
	}
	if is.Max >= limit.Max || unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		return want, nil
	}
	most := (int(is.Max) - otherFiles) / 2 // who has no CAP_SYS_RESOURCE
	fmt.Printf("  the limit of open files is %d here, and may not be raised: %d relays instead of %d\n", is.Max, most, want)
	return most, nil
}

// handover replaces an agent that relays many connections in plain text, both ways, while
// each of them is asked in turn and new ones are made. None may fail.
func handover(ctx context.Context, o options) (memory, error) {
	fmt.Printf("\nhandover: an agent with relays is replaced\n")
	relays, err := mostRelays(o.relays)
	if err != nil {
		return nil, err
	}
	const pods = 2 // of each way: a port of an application has 16,500 for one client
	yaml := clusterYAML + podYAML("plain", "stranger", "n2") + podYAML("mesh", "fresh", "n1")
	for i := range pods {
		yaml += podYAML("mesh", fmt.Sprintf("inside%d", i), "n1")
	}
	c, err := up(ctx, o, yaml)
	if err != nil {
		return nil, err
	}
	defer c.down()
	stranger, strangerIP := c.pod("plain", "stranger")
	if _, err := c.start(ctx, stranger, 9000, "sink", ":9000"); err != nil {
		return nil, err
	}
	var asking []*asker
	for i := range pods {
		ns, ip := c.pod("mesh", fmt.Sprintf("inside%d", i))
		if _, err := c.start(ctx, ns, 9000, "sink", ":9000"); err != nil {
			return nil, err
		}
		for _, way := range []struct{ from, to string }{{ns, strangerIP}, {stranger, ip}} {
			a, err := c.ask(ctx, way.from, hostPort(way.to, 9000), relays/(2*pods))
			if err != nil {
				return nil, err
			}
			asking = append(asking, a)
		}
	}
	for _, a := range asking {
		if line, _ := a.says.ReadString('\n'); line != "held\n" {
			return nil, fmt.Errorf("the connections were not made")
		}
	}
	relays -= relays % (2 * pods)
	first := c.Agent("n1")
	out := memory{"relays": float64(relays), "load": measure.Load()}
	if err := out.resident("first, before", first); err != nil {
		return nil, err
	}
	fresh, _ := c.pod("mesh", "fresh")
	made := make(chan error, 1)
	loading, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		m, err := runLoad(loading, fresh, "--addr", hostPort(strangerIP, 9000), "--mode", "crr", "--conns", "4", "--duration", "20s")
		if err == nil && m.Errors > 0 {
			err = fmt.Errorf("a new connection failed: %s", m.LastError)
		}
		out["new connections"] = float64(m.Operations)
		made <- err
	}()
	used, err := measure.CPU(first)
	if err != nil {
		return nil, err
	}
	next, since, err := c.next(ctx, first)
	if err != nil {
		return nil, err
	}
	for n := 0; n < relays; {
		if n, err = has(ctx, c.Nodes[0].NetNS); err != nil {
			return nil, err
		}
		if time.Since(since) > 2*time.Minute {
			return nil, fmt.Errorf("%d of %d relays are the next agent's after two minutes", n, relays)
		}
	}
	out["seconds"] = time.Since(since).Seconds()
	after, err := measure.CPU(first)
	if err != nil {
		return nil, err
	}
	out["cpu first"] = (after - used).Seconds()
	if after, err = measure.CPU(next); err != nil {
		return nil, err
	}
	out["cpu next"] = after.Seconds()
	for _, a := range asking {
		m, err := a.end()
		if err != nil {
			return nil, err
		}
		if m.Errors > 0 {
			return nil, fmt.Errorf("%d of the relayed connections failed: %s", m.Errors, m.LastError)
		}
		out["answers"] += float64(m.Operations)
		out["slowest"] = max(out["slowest"], m.Slowest)
	}
	if err := <-made; err != nil {
		return nil, err
	}
	for who, pid := range map[string]int{"first": first, "next": next} {
		if err := out.resident(who+", after", pid); err != nil {
			return nil, err
		}
		if out["most "+who], err = peak(pid); err != nil {
			return nil, err
		}
	}
	fmt.Printf("  %d relays are the next agent's %.1f s after it owns the node; CPU %.1f s of the first agent, %.1f s of the next (its start with it)\n",
		relays, out["seconds"], out["cpu first"], out["cpu next"])
	fmt.Printf("  %.0f answers on them meanwhile and after, the slowest in %.0f ms, and %.0f new connections: none failed\n", out["answers"], out["slowest"], out["new connections"])
	fmt.Printf("  resident: first %.0f MB before, %.0f MB at most; next %.0f MB after, %.0f MB at most; load %.0f\n",
		out["first, before"]/1e6, out["most first"]/1e6, out["next, after"]/1e6, out["most next"]/1e6, out["load"])
	return out, nil
}

func (m memory) resident(what string, pid int) error {
	b, err := measure.RSS(pid)
	m[what] = float64(b)
	return err
}

// peak is the most that a process had resident, in bytes (proc_pid_status(5)).
func peak(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	return kb * 1024, err
}

// next starts an agent on the first node beside the one with that process, and returns
// when it owns the node.
func (c *running) next(ctx context.Context, before int) (pid int, since time.Time, err error) {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", before))
	if err != nil {
		return 0, since, err
	}
	args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
	args = append(args, "--admin-address", "localhost:16000", "--metrics-address", "[::]:16020", "--readiness-address", "[::]:16021")
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + c.Nodes[0].NetNS}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := cmd.StderrPipe()
	if err != nil {
		return 0, since, err
	}
	if err := cmd.Start(); err != nil {
		return 0, since, err
	}
	c.processes = append(c.processes, cmd)
	said := bufio.NewScanner(log)
	for said.Scan() {
		if strings.Contains(said.Text(), "this agent owns the node") {
			since = time.Now()
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return cmd.Process.Pid, since, nil
		}
	}
	return 0, since, fmt.Errorf("the next agent ended before it owned the node")
}

// has is how many connections of strangers the next agent has.
func has(ctx context.Context, ns string) (n int, err error) {
	page, err := cluster.Ask(ctx, ns, "http://localhost:16020/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "istio_tcp_sockets_open{") {
			fields := strings.Fields(line)
			v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				return 0, err
			}
			n += int(v)
		}
	}
	return n, nil
}

// asker is a process that asks over connections that it keeps.
type asker struct {
	in   io.WriteCloser
	says *bufio.Reader
}

// ask starts one, which says "held" when it has its connections.
func (c *running) ask(ctx context.Context, ns, addr string, conns int) (*asker, error) {
	cmd := inside(ctx, ns, "ask", "--addr", addr, "--conns", strconv.Itoa(conns))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.processes = append(c.processes, cmd)
	return &asker{in, bufio.NewReader(out)}, cmd.Start()
}

// end has it ask over each of its connections once more, and returns what it saw.
func (a *asker) end() (m asked, err error) {
	if err := a.in.Close(); err != nil {
		return m, err
	}
	return m, json.NewDecoder(a.says).Decode(&m)
}
