package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/test/bench/measure"
)

// process is a server that is measured.
type process struct {
	cmd            *exec.Cmd
	address, admin string
	roots          string
	input          io.WriteCloser // or nil
	started        time.Time
	ended          chan struct{} // closes with its end
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startPlane starts the control plane on a cluster. Its CA stays from one to the next.
func startPlane(o options, kubeconfig, dir string, before *process) (*process, error) {
	p := &process{roots: filepath.Join(dir, "roots.pem")}
	var err error
	if before != nil {
		p.address, p.admin = before.address, before.admin
	} else if p.address, err = freePort(); err != nil {
		return nil, err
	} else if p.admin, err = freePort(); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "control-plane.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(filepath.Join(o.bin, "control-plane"), "--kubeconfig", kubeconfig, "--root-cert-out", p.roots, "--listen", p.address, "--admin-address", p.admin, "--dns-names", serverName)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.started = time.Now()
	return p, p.begin()
}

// begin starts the process.
func (p *process) begin() error {
	if err := p.cmd.Start(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go func() { defer close(p.ended); _ = p.cmd.Wait() }()
	return nil
}

// ready waits until a control plane is, and tells how long that took from its start.
func (p *process) ready(ctx context.Context) (time.Duration, error) {
	for {
		response, err := http.Get("http://" + p.admin + "/healthz/ready")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return time.Since(p.started), nil
			}
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the control plane does not become ready: %w", ctx.Err())
		case <-p.ended:
			return 0, errors.New("the control plane has ended: " + p.said())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// listed is how long after its start a control plane had all objects, as it says.
func (p *process) listed() time.Duration {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.roots), "control-plane.log"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		stamp, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		if at, err := time.Parse(time.RFC3339Nano, stamp); err == nil && at.After(p.started) && strings.Contains(rest, "all objects are listed") {
			return at.Sub(p.started)
		}
	}
	return 0
}

// said is the end of what a control plane has logged.
func (p *process) said() string {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(p.roots), "control-plane.log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-1000):])
}

// startBare starts the server that only sends.
func startBare(dir string) (*process, error) {
	p := &process{roots: filepath.Join(dir, "bare-roots.pem")}
	var err error
	if p.address, err = freePort(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(self, "bare", p.address, p.roots)
	p.cmd.Stderr = os.Stderr
	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.begin(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if strings.TrimSpace(line) != "listening" {
		return p, errors.Join(errors.New("the bare server does not listen"), err)
	}
	return p, nil
}

func (p *process) stop() {
	if p == nil || p.ended == nil {
		return
	}
	_ = p.cmd.Process.Signal(os.Interrupt)
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) cpu() time.Duration {
	d, err := measure.CPU(p.cmd.Process.Pid)
	if err != nil {
		return 0
	}
	return d
}

// memory is the resident memory now and at most, in MB.
func (p *process) memory() (now, most float64) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(b)) {
		var kb float64
		if _, err := fmt.Sscanf(line, "VmHWM: %f kB", &kb); err == nil {
			most = kb / 1000
		}
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kb); err == nil {
			now = kb / 1000
		}
	}
	return now, most
}
