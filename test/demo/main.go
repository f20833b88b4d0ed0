// Demo shows on this machine what Fairlead does, and checks each claim: two
// nodes, a Bookinfo-like application, before and after the label. It ends with
// exit code 1 at the first claim that does not hold.
//
//	KEEP=1 leaves the cluster up.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/test/capture"
)

// patience bounds the wait for a state; it ends when the state is there.
const patience = 30 * time.Second

type demo struct {
	cli, dir, name string
	started        time.Time
	step           int
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo: FAILED:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	cli, err := filepath.Abs("bin/fairlead")
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "fairlead-demo-")
	if err != nil {
		return err
	}
	d := &demo{cli: cli, dir: dir, name: fmt.Sprintf("demo-%d", os.Getpid()), started: time.Now()}
	if err := os.CopyFS(dir, os.DirFS("examples/bookinfo")); err != nil {
		return err
	}
	keep := os.Getenv("KEEP") != ""
	defer func() {
		if keep && err == nil {
			fmt.Printf("\nThe cluster stays up. Take it down with: bin/fairlead lab down --name %s\n", d.name)
			return
		}
		_, derr := d.lab("down")
		err = errors.Join(err, derr, os.RemoveAll(dir))
	}()
	for _, step := range []struct {
		title string
		do    func() error
	}{
		{"Two nodes and a Bookinfo-like application, from a directory of YAML", d.up},
		{"Before the label: the application's bytes cross the network in the clear", d.before},
		{"The namespace is labelled istio.io/dataplane-mode=ambient; nothing restarts", d.label},
		{"After it: mutual TLS, and none of the application's bytes", d.after},
		{"Who calls whom, proven: both SPIFFE IDs are in the record", d.identities},
		{"A DENY policy: the caller is refused, and its live connection is closed", d.deny},
		{"STRICT: a client outside the mesh is refused, the mesh is not", d.strict},
		{"The metrics, with Istio's names and labels", d.metrics},
		{"A waypoint: requests are routed by what they are", d.waypoint},
		{"A canary by weight, moved by editing the YAML", d.byWeight},
		{"A canary by content: a cookie, a user agent, a header", d.byContent},
		{"Retries hide a server that fails now and then", d.retries},
		{"An injected fault reaches no server", d.fault},
		{"A timeout ends what takes too long", d.timeout},
		{"A version that fails is left out, and taken back", d.ejection},
	} {
		d.step++
		fmt.Printf("\n%d. %s\n", d.step, step.title)
		if err := step.do(); err != nil {
			return fmt.Errorf("step %d (%s): %w", d.step, step.title, err)
		}
	}
	fmt.Printf("\nAll %d steps hold, in %.1f s.\n", d.step, time.Since(d.started).Seconds())
	fmt.Println("\nNext:\n  KEEP=1 make demo                      keep it up, and look around:\n  bin/fairlead lab ps\n" +
		"  bin/fairlead lab exec client -- curl -s productpage:9080/productpage\n  bin/fairlead lab logs agent/n1\n  docs/lab.md                           your own cluster, from your own YAML")
	return nil
}

// say prints what was seen.
func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func (d *demo) lab(verb string, args ...string) (string, error) {
	cmd := exec.Command(d.cli, append([]string{"lab", verb, "--name", d.name}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("fairlead lab %s %s: %w\n%s%s", verb, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

func (d *demo) exec(pod string, argv ...string) (string, error) {
	return d.lab("exec", append([]string{pod, "--"}, argv...)...)
}

// eventually tries until it holds.
func eventually(try func() error) error {
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		<-tick.C
	}
}

func (d *demo) write(name, text string) error {
	return os.WriteFile(filepath.Join(d.dir, name), []byte(text), 0o644)
}

// page asks productpage from a pod; the answer names the services behind it.
func (d *demo) page(pod string) error {
	out, err := d.exec(pod, "curl", "-sS", "-m", "10", "http://productpage.default:9080/productpage")
	if err == nil && !strings.Contains(out, "Book Reviews") {
		err = fmt.Errorf("the page has no reviews:\n%s", out)
	}
	return err
}

// netns is the path of a node's network namespace.
func (d *demo) netns(node string) (string, error) {
	out, err := d.lab("ps", "-o", "json")
	if err != nil {
		return "", err
	}
	var view struct {
		Nodes []struct{ Name, NetNS string } `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil {
		return "", err
	}
	for _, n := range view.Nodes {
		if n.Name == node {
			return n.NetNS, nil
		}
	}
	return "", errors.New("no node " + node)
}

// details asks details, on the other node, while a witness listens on that node.
func (d *demo) details() (*capture.Capture, error) {
	path, err := d.netns("n2")
	if err != nil {
		return nil, err
	}
	witness, err := capture.Start(path)
	if err != nil {
		return nil, err
	}
	out, err := d.exec("client", "curl", "-sS", "-m", "10", "http://details:9080/details/0")
	if err == nil && !strings.Contains(out, "publisher") {
		err = fmt.Errorf("details answered: %s", out)
	}
	return witness, errors.Join(err, witness.Stop())
}

func (d *demo) up() error {
	out, err := d.lab("up", "--detach", d.dir)
	if err != nil {
		return err
	}
	say("%s", strings.TrimSpace(out))
	return eventually(func() error { return d.page("client") })
}

func (d *demo) before() error {
	witness, err := d.details()
	if err != nil {
		return err
	}
	if !witness.Contains("publisher") {
		return errors.New("the capture between the nodes did not see the application's bytes: it proves nothing")
	}
	say("a capture between the nodes sees GET /details/0 and its answer")
	return nil
}

func (d *demo) label() error {
	path := filepath.Join(d.dir, "00-cluster.yaml")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	labelled := strings.Replace(string(b), "  name: default\n", "  name: default\n  labels: {istio.io/dataplane-mode: ambient}\n", 1)
	if labelled == string(b) {
		return errors.New("examples/bookinfo/00-cluster.yaml has no namespace default")
	}
	if err := os.WriteFile(path, []byte(labelled), 0o644); err != nil {
		return err
	}
	// The pods' own announcement, and what the clients' agent knows of it.
	return eventually(func() error {
		witness, err := d.details()
		if err == nil && (!witness.TLS13(15008) && witness.Contains("publisher")) {
			err = errors.New("details is not reached through a tunnel yet")
		}
		return err
	})
}

func (d *demo) after() error {
	if err := d.page("client"); err != nil {
		return err
	}
	// A new tunnel, so that its handshake is in the capture: details comes back
	// as another pod.
	if _, err := d.lab("delete", "pod", "details"); err != nil {
		return err
	}
	var witness *capture.Capture
	if err := eventually(func() (err error) {
		if witness, err = d.details(); err == nil && !witness.TLS13(15008) {
			err = errors.New("no TLS 1.3 handshake on port 15008 was seen")
		}
		return err
	}); err != nil {
		return err
	}
	if witness.Contains("publisher") || witness.Contains("GET /details") {
		return errors.New("the application's bytes crossed the network in the clear")
	}
	say("TLS 1.3 on port 15008, and not a byte of the application's")
	return nil
}

func (d *demo) identities() error {
	return eventually(func() error {
		out, err := d.lab("logs", "agent/n2")
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, `"src.identity":"spiffe://cluster.local/ns/default/sa/client"`) && strings.Contains(line, `"dst.identity":"spiffe://cluster.local/ns/default/sa/bookinfo-details"`) {
				say("spiffe://cluster.local/ns/default/sa/client -> spiffe://cluster.local/ns/default/sa/bookinfo-details")
				return nil
			}
		}
		return errors.New("no record with both identities")
	})
}

func (d *demo) deny() error {
	// A connection that is open when the policy comes.
	live := exec.Command(d.cli, "lab", "exec", "--name", d.name, "client", "--", "nc", "details", "9080")
	stdin, err := live.StdinPipe()
	if err != nil {
		return err
	}
	live.Stdout, live.Stderr = io.Discard, io.Discard
	if err := live.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() { _ = live.Wait(); close(ended) }()
	defer stdin.Close()
	if _, err := io.WriteString(stdin, "GET / HTTP/1.1\r\n"); err != nil { // and never the rest
		return err
	}
	if err := eventually(func() error {
		out, err := d.exec("node/n2", "curl", "-sS", "localhost:15000/config_dump")
		if err == nil && !strings.Contains(out, `"actualDst": "10.`) && !strings.Contains(out, `"actualDst": "[`) {
			err = errors.New("the connection is not live at the destination")
		}
		return err
	}); err != nil {
		return err
	}
	if err := d.write("policy.yaml", `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-client, namespace: default}
spec:
  selector: {matchLabels: {app: details}}
  action: DENY
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/client]}}]}]
`); err != nil {
		return err
	}
	if err := eventually(func() error {
		if _, err := d.exec("client", "curl", "-sS", "-m", "10", "http://details:9080/details/0"); err == nil {
			return errors.New("the client is not refused")
		}
		return nil
	}); err != nil {
		return err
	}
	select {
	case <-ended:
	case <-time.After(patience):
		return errors.New("the live connection was not closed")
	}
	if err := d.recorded("agent/n2", "connection closed due to policy change"); err != nil {
		return err
	}
	if err := d.recorded("agent/n2", `"policy":"default/deny-client"`); err != nil {
		return err
	}
	say("refused by default/deny-client; the open connection: \"connection closed due to policy change\"")
	return os.Remove(filepath.Join(d.dir, "policy.yaml"))
}

func (d *demo) recorded(where, text string) error {
	return eventually(func() error {
		out, err := d.lab("logs", where)
		if err == nil && !strings.Contains(out, text) {
			err = fmt.Errorf("no record of %s says %s", where, text)
		}
		return err
	})
}

func (d *demo) strict() error {
	if err := eventually(func() error { return d.page("stranger") }); err != nil {
		return fmt.Errorf("before STRICT: %w", err)
	}
	if err := d.write("strict.yaml", `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`); err != nil {
		return err
	}
	if err := eventually(func() error {
		if d.page("stranger") == nil {
			return errors.New("a client without identity is let in")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := eventually(func() error { return d.page("client") }); err != nil {
		return fmt.Errorf("a client of the mesh: %w", err)
	}
	say("outside/stranger: refused; default/client: the page")
	return nil
}

func (d *demo) metrics() error {
	out, err := d.exec("node/n1", "curl", "-sS", "localhost:15020/metrics")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "istio_tcp_connections_opened_total{") && strings.Contains(line, `source_workload="client"`) && strings.Contains(line, `connection_security_policy="mutual_tls"`) {
			say("%s", strings.TrimSpace(line))
			return nil
		}
	}
	return errors.New("no istio_tcp_connections_opened_total of the client's with mutual TLS")
}
