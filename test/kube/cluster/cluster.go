package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

// Cluster is a running cluster.
type Cluster struct {
	// Name is that of its Options.
	Name string
	// Dir holds its certificates, its state and the logs of its parts.
	Dir string
	// Kubeconfig is the file that makes its reader the administrator, from this
	// machine's own network namespace.
	Kubeconfig string
	// Nodes are its nodes.
	Nodes []*Node

	options Options
	held    *os.File // the lock of the name
	control *process
	others  []*process
	network *network
}

// Keep is the environment variable under which a cluster that did not start, or
// whose test failed, is left for a look at its logs, until [Down].
const Keep = "FAIRLEAD_KUBE_KEEP"

// apiPort is the API server's port in the cluster's own network.
const apiPort = 6443

// Start brings a cluster up. While another process has one of the same name it
// waits, until ctx ends. What an earlier one of the same name left behind is
// removed first. On error nothing is left.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	held, err := waitLock(ctx, o.Name)
	if err != nil {
		return nil, err
	}
	if err := down(o.Name); err != nil {
		_ = held.Close()
		return nil, fmt.Errorf("clear what an earlier cluster left: %w", err)
	}
	c := &Cluster{Name: o.Name, Dir: filepath.Join(root(), o.Name), options: o, held: held}
	c.Kubeconfig = filepath.Join(c.Dir, "admin.kubeconfig")
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, errors.Join(fmt.Errorf("cluster %s: %w", o.Name, err), held.Close())
	}
	if err := c.start(ctx); err != nil {
		if os.Getenv(Keep) != "" {
			return nil, fmt.Errorf("cluster %s, kept in %s: %w", o.Name, c.Dir, err)
		}
		return nil, errors.Join(fmt.Errorf("cluster %s: %w", o.Name, err), c.stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	if c.options.Nodes > 0 {
		if err := c.makeNetwork(); err != nil {
			return err
		}
	}
	pki, err := c.startControlPlane(ctx)
	if err != nil {
		return err
	}
	if c.options.Nodes > 0 {
		if err := c.startNodes(ctx, pki); err != nil {
			return err
		}
	}
	return c.save()
}

// startControlPlane makes the certificates and starts the API server: on loopback
// of this namespace for the test and, with nodes, in the cluster's network too.
func (c *Cluster) startControlPlane(ctx context.Context) (*authority, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the API server: %w", err)
	}
	outside := "https://" + l.Addr().String()
	socket, err := l.(*net.TCPListener).File()
	_ = l.Close()
	if err != nil {
		return nil, fmt.Errorf("hand over the API server's socket: %w", err)
	}
	defer socket.Close()
	inside := outside
	if c.network != nil {
		inside = c.options.server()
	}
	pki, err := issue(c.Dir, outside, inside)
	if err != nil {
		return nil, err
	}
	path, err := c.options.part("control-plane")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(path, "-dir="+c.Dir, "-inherit")
	cmd.Dir = c.Dir
	cmd.ExtraFiles = []*os.File{socket}
	var ns *netns.NS
	if c.network != nil {
		ns = c.network.hub
		families := c.options.families()
		cmd.Args = append(cmd.Args, "-address="+families[0].hub, fmt.Sprintf("-port=%d", apiPort), "-nodes", "-aggregate",
			"-services="+each(families, func(f family) string { return f.services }))
	}
	if !c.options.Detached {
		cmd.Args = append(cmd.Args, "-lifeline")
	}
	if c.control, err = start(c.Dir, "control-plane", cmd, ns, c.options.Detached); err != nil {
		return nil, err
	}
	// The default service account is what the first pod waits for: it shows that the
	// controllers run as well.
	return pki, c.control.wait(ctx, func() error {
		_, err := c.Kubectl(ctx, "get", "serviceaccount", "default", "--request-timeout=5s")
		return err
	})
}

// server is the API server's URL in the cluster's network.
func (o *Options) server() string {
	return "https://" + net.JoinHostPort(o.families()[0].hub, strconv.Itoa(apiPort))
}

// Certificates writes to dir all that the part control-plane needs to serve at server,
// a URL on loopback: for who starts it without a cluster.
func Certificates(dir, server string) error {
	_, err := issue(dir, server, server)
	return err
}

// issue makes every certificate and kubeconfig of the control plane, as it is called
// from this machine's own namespace and from the cluster's.
func issue(dir, outside, inside string) (*authority, error) {
	pki, err := newAuthority(dir)
	if err != nil {
		return nil, err
	}
	server := subject{
		name: "kube-apiserver",
		dns:  []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		ips:  []net.IP{net.IPv4(127, 0, 0, 1), net.ParseIP(hubAddress), net.IPv4(10, 96, 0, 1), net.ParseIP(hubAddress6), net.ParseIP("fd96::1")},
	}
	const masters = "system:masters"
	for name, s := range map[string]subject{
		"apiserver":      server,
		"admin":          {name: "admin", organization: masters},
		"controllers":    {name: "system:kube-controller-manager", organization: masters},
		"scheduler":      {name: "system:kube-scheduler"},
		"kube-proxy":     {name: "system:kube-proxy"},
		"front-proxy":    {name: "front-proxy"},
		"kubelet-client": {name: "kube-apiserver-kubelet-client", organization: masters},
	} {
		if err := pki.issue(name, s); err != nil {
			return nil, err
		}
	}
	if err := pki.signing("service-account"); err != nil {
		return nil, err
	}
	for _, name := range []string{"controllers", "scheduler", "kube-proxy"} {
		if err := pki.kubeconfig(name, name, inside); err != nil {
			return nil, err
		}
	}
	if err := pki.kubeconfig("inside", "admin", inside); err != nil {
		return nil, err
	}
	return pki, pki.kubeconfig("admin", "admin", outside)
}

// Config is the administrator's access for client-go.
func (c *Cluster) Config() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
	}
	config.QPS, config.Burst = 200, 400
	return config, nil
}

// KubectlPath is the kubectl of the cluster's own version.
func (c *Cluster) KubectlPath() string { return filepath.Join(c.options.Parts, "kubectl") }

// Kubectl runs kubectl as administrator and returns what it prints.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	return c.KubectlInput(ctx, "", args...)
}

// KubectlInput runs kubectl with a standard input: Kubectl(ctx, manifest, "apply", "-f-").
func (c *Cluster) KubectlInput(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, c.KubectlPath(), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig, "KUBECACHEDIR="+filepath.Join(c.Dir, "kubectl"))
	cmd.Stdin = strings.NewReader(input)
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(failure.String()))
	}
	return string(out), nil
}

// Log is the end of the control plane's log, for a test's failure message.
func (c *Cluster) Log() string { return tail(c.control.log) }

// Stop ends the cluster and removes what it made, all of it.
func (c *Cluster) Stop() error { return c.stop() }

func (c *Cluster) stop() error {
	if c.network != nil {
		_ = c.network.close()
	}
	if c.held == nil {
		return nil // the name may be someone else's by now
	}
	err := errors.Join(down(c.Name), c.held.Close())
	c.held = nil
	return err
}

// stateFile is what Open reads: a cluster that another process started.
const stateFile = "cluster.json"

func (c *Cluster) save() error {
	b, err := json.Marshal(c.options)
	if err != nil {
		return fmt.Errorf("save the cluster's options: %w", err)
	}
	if err := os.WriteFile(filepath.Join(c.Dir, stateFile), b, 0o600); err != nil {
		return fmt.Errorf("save the cluster's options: %w", err)
	}
	return nil
}

// List returns the names of the clusters that are up or that left something.
func List() ([]string, error) {
	entries, err := os.ReadDir(root())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list clusters: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// startup bounds the start of a cluster: seconds on an idle machine, more beside builds.
const startup = 3 * time.Minute
