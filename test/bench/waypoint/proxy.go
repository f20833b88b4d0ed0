package waypoint

import (
	"bufio"
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"text/template"
	"time"
)

//go:embed config
var configs embed.FS

var templates = template.Must(template.ParseFS(configs, "config/*"))

// world is what a run has started.
type world struct {
	o         Options
	dir       string
	origins   map[string]int // ports
	admin     string         // the origin's
	processes []*exec.Cmd
}

// proxy is one that is measured.
type proxy struct {
	name             string
	port, admin, pid int
	log              string
	cmd              *exec.Cmd
}

// setting is what the configurations of all proxies are made of.
type setting struct {
	Port, Admin int
	Dir, Log    string
	Origins     map[string]int
	HTTP2       bool
	Observed    bool // with authorization, access log and metrics
	Hosts       []virtualHost
}

type virtualHost struct {
	Name     string
	Domains  []string
	Prefixes []string // of routes to the second version, for those with a header
}

var oneRoute = []virtualHost{{Name: "all", Domains: []string{"*"}, Prefixes: []string{"/"}}}

const (
	proxyCPU = "0"
	otherCPU = "1"
)

// start runs a proxy; the process is the proxy itself, so that its CPU time is.
func (w *world) start(ctx context.Context, name string, s setting) (*proxy, error) {
	if err := w.originUp(ctx); err != nil {
		return nil, err
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	p := &proxy{name: name, port: ports[0], admin: ports[1], log: filepath.Join(w.dir, fmt.Sprintf("%s-%d.log", name, ports[0]))}
	s.Port, s.Admin, s.Origins, s.Dir, s.Log = p.port, p.admin, w.origins, w.dir, p.log
	listen, v1, v2 := local(p.port), local(w.origins["v1"]), local(w.origins["v2"])
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	config := func(template string) string {
		if err == nil {
			var path string
			path, err = w.configuration(template, fmt.Sprintf("%s-%d%s", name, p.port, filepath.Ext(template)), s)
			return path
		}
		return ""
	}
	var argv []string
	switch name {
	case "fairlead":
		argv = []string{filepath.Join(w.o.Bin, "waypoint"), "--bootstrap", config("proxy.yaml"), "--admin-address", local(p.admin), "--metrics-address", local(ports[2]), "--readiness-address", local(ports[3]), "--log-level", "warn"}
	case "envoy":
		argv = []string{filepath.Join(w.o.Peers, "envoy", "envoy"), "--concurrency", "1", "--log-level", "error", "--base-id", strconv.Itoa(p.port), "-c", config("proxy.yaml")}
	case "haproxy":
		argv = []string{"haproxy", "-db", "-q", "-f", config("haproxy.cfg")}
	case "nginx":
		argv = []string{"nginx", "-c", config("nginx.conf")}
	case "caddy":
		argv = []string{filepath.Join(w.o.Peers, "caddy", "caddy"), "run", "--adapter", "caddyfile", "--config", config("Caddyfile")}
	case "fasthttp":
		argv = []string{filepath.Join(w.o.Peers, "bench", "fasthttp"), "-listen", listen, "-v1", v1, "-v2", v2}
	case "nethttp":
		argv = []string{self, "l7-nethttp", "--listen", listen, "--v1", v1, "--v2", v2, "--h2=" + strconv.FormatBool(s.HTTP2)}
	default:
		return nil, fmt.Errorf("there is no proxy %q", name)
	}
	if err != nil {
		return nil, err
	}
	if p.cmd, err = w.process(ctx, proxyCPU, p.port, argv...); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p.pid = p.cmd.Process.Pid
	return p, nil
}

func (w *world) configuration(name, as string, s setting) (string, error) {
	path := filepath.Join(w.dir, as)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return path, templates.ExecuteTemplate(f, name, s)
}

// originUp starts the origin, once.
func (w *world) originUp(ctx context.Context) error {
	if w.origins != nil {
		return nil
	}
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if _, err := w.process(ctx, otherCPU, ports[2], self, "l7-origin", "--v1", local(ports[0]), "--v2", local(ports[1]), "--admin", local(ports[2])); err != nil {
		return err
	}
	w.origins, w.admin = map[string]int{"v1": ports[0], "v2": ports[1]}, "http://"+local(ports[2])
	return nil
}

// process runs until the world ends; it is ready when its port is listened on.
func (w *world) process(ctx context.Context, cpu string, port int, argv ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", cpu}, argv...)...) // which becomes the program
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", "HOME="+w.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	errs, err := os.CreateTemp(w.dir, "stderr")
	if err != nil {
		return nil, err
	}
	defer errs.Close()
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	w.processes = append(w.processes, cmd)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		c, err := net.Dial("tcp", local(port))
		if err == nil {
			return cmd, c.Close()
		}
	}
	said, _ := os.ReadFile(errs.Name())
	return nil, fmt.Errorf("%s does not listen on port %d: %s", argv[0], port, said)
}

func (w *world) stop(p *proxy) {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed
}

func (w *world) close() {
	for _, c := range w.processes {
		_ = c.Process.Kill()
		_ = c.Wait() // killed
	}
}

// part starts a part of this program beside the origin, and returns what it says.
func (w *world) part(ctx context.Context, args ...string) (*exec.Cmd, *bufio.Reader, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, "taskset", append([]string{"-c", otherCPU, self}, args...)...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	return cmd, bufio.NewReader(out), nil
}

func local(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePorts are of different listeners, which are closed again.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			return nil, errors.Join(err, lerr)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, err
}
