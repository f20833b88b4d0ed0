package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const twoNodes = `
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
`

func podYAML(name, node, more string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, labels: {app: %s}}\nspec:\n  nodeName: %s\n  terminationGracePeriodSeconds: 1\n  %s\n", name, name, node, more)
}

func deploymentYAML(name string, replicas int, version string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[2]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s, version: %[3]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: app, image: echo, readinessProbe: {httpGet: {port: 8080, path: /health}}}]
`, name, replicas, version)
}

const sleeper = `containers: [{name: app, image: curlimages/curl}]`

// echoed is what the echo program answers.
type echoed struct{ Pod, Client, Version string }

func (r *running) echo(from, url string, curl ...string) echoed {
	r.t.Helper()
	out := r.must(from, append([]string{"curl", "-sS", "-m", "5", url}, curl...)...)
	var e echoed
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		r.t.Fatalf("%s: %v: %s", url, err, out)
	}
	return e
}

func TestPodsReachEachOther(t *testing.T) {
	r := start(t, "reach", map[string]string{
		"nodes.yaml": twoNodes,
		"app.yaml": podYAML("client", "n1", sleeper) +
			podYAML("same", "n1", "containers: [{name: app, image: echo, ports: [{name: http, containerPort: 8080}, {name: banner, containerPort: 2525}, {containerPort: 5353, protocol: UDP}]}]") +
			podYAML("cross", "n2", "hostname: cross\n  subdomain: headless\n  containers: [{name: app, image: 'example.com/echo:v1@sha256:0'}]") + `---
apiVersion: v1
kind: Service
metadata: {name: both}
spec: {selector: {app: cross}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: same}
spec: {selector: {app: same}, ports: [{name: http, port: 80, targetPort: http}, {name: banner, port: 25, targetPort: banner}, {name: udp, protocol: UDP, port: 53, targetPort: 5353}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless}
spec: {clusterIP: None, selector: {app: cross}, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: same.default.svc.cluster.local}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside}
spec: {hosts: [api.example.com, "*.wild.example.com"], addresses: [240.1.2.3], resolution: STATIC}
`,
	})
	v := r.until("ready", func(v View) bool { return v.Ready })
	for _, url := range []string{"http://both/", "http://both.default/", "http://both.default.svc.cluster.local/", "http://headless:8080/", "http://cross.headless:8080/"} {
		for _, family := range []string{"-4", "-6"} {
			if family == "-6" && strings.Contains(url, "headless") {
				continue // single-stack by default, as on Kubernetes
			}
			if got := r.echo("client", url, family); got.Pod != "cross" {
				t.Errorf("%s %s answered by %q", family, url, got.Pod)
			}
		}
	}
	if got := r.echo("client", "http://alias/"); got.Pod != "same" {
		t.Errorf("alias answered by %q", got.Pod)
	}
	// The caller's own address is kept.
	for _, p := range v.Pods {
		if got := r.echo("client", "http://same/"); p.Name == "client" && !strings.HasPrefix(got.Client, p.IPs[0]+":") {
			t.Errorf("the server saw %s, the client is %s", got.Client, p.IPs[0])
		}
	}
	// To oneself by one's own service.
	if got := r.echo("same", "http://same.default/"); got.Pod != "same" {
		t.Errorf("hairpin answered by %q", got.Pod)
	}
	// From a node.
	if got := r.echo("node/n2", "http://"+v.Services[len(v.Services)-1].ClusterIPs[0]+"/"); got.Pod != "same" {
		t.Errorf("from the node answered by %q", got.Pod)
	}
	if out := r.must("client", "sh", "-c", "echo QUIT | timeout 5 bash -c 'exec 3<>/dev/tcp/same/25; head -n1 <&3'"); !strings.HasPrefix(out, "220 ") {
		t.Errorf("server-first port said %q", out)
	}
	if out := r.must("client", "timeout", "5", "bash", "-c", "exec 3<>/dev/udp/same/53; echo hello >&3; head -n1 <&3"); out != "hello\n" {
		t.Errorf("UDP echo said %q", out)
	}
	if out, err := r.in("client", "curl", "-sS", "-m", "5", "http://empty/"); err == nil || !strings.Contains(out, "(7)") {
		t.Errorf("a service without endpoints: %v %s, want refused", err, out)
	}
	for _, from := range []string{"client", "node/n1"} {
		if out, err := r.in(from, "curl", "-sS", "-m", "2", "http://10.96.255.250/"); err == nil || !strings.Contains(out, "(7)") {
			t.Errorf("from %s, an address that no service has: %v %s, want refused", from, err, out)
		}
	}
	if out, err := r.in("client", "curl", "-sS", "-m", "5", "http://nobody.example.com/"); err == nil || !strings.Contains(out, "(6)") {
		t.Errorf("an unknown name: %v %s", err, out)
	}
	for name, want := range map[string]string{"api.example.com": "240.1.2.3", "a.wild.example.com": "240.1.2.3"} {
		if out := r.must("client", "getent", "ahostsv4", name); !strings.HasPrefix(out, want) {
			t.Errorf("%s is %q, want %s", name, out, want)
		}
	}
	if out := r.must("client", "hostname"); out != "client\n" {
		t.Errorf("host name %q", out)
	}
	if _, err := os.Stat(filepath.Join(r.dir, ".fairlead/objects/pod_default_client.yaml")); err != nil {
		t.Error(err)
	}
	r.stop()
	if left := traces(t, r.Name, r.dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func readyOf(v View, deployment string) (out []string, ips map[string]bool) {
	ips = map[string]bool{}
	for _, p := range v.Pods {
		if p.Deployment == deployment && !p.Terminating && p.Ready {
			out = append(out, p.Name)
			for _, ip := range p.IPs {
				ips[ip] = true
			}
		}
	}
	return out, ips
}

func TestTheDirectoryIsFollowed(t *testing.T) {
	r := start(t, "follow", map[string]string{"nodes.yaml": twoNodes, "web.yaml": deploymentYAML("web", 2, "v1"), "client.yaml": podYAML("client", "n1", sleeper)})
	count := func(n int) func(View) bool {
		return func(v View) bool { got, _ := readyOf(v, "web"); return len(got) == n }
	}
	v := r.until("two pods", count(2))
	nodes := map[string]bool{}
	for _, p := range v.Pods {
		if p.Deployment == "web" {
			nodes[p.Node] = true
		}
	}
	if len(nodes) != 2 {
		t.Errorf("two replicas are on %v, want one on each node", nodes)
	}
	// An atomic save scales up.
	r.write("web.yaml.new", deploymentYAML("web", 4, "v1"))
	if err := os.Rename(filepath.Join(r.dir, "web.yaml.new"), filepath.Join(r.dir, "web.yaml")); err != nil {
		t.Fatal(err)
	}
	before, _ := readyOf(r.until("four pods", count(4)), "web")
	// A rename of the file changes nothing, a file that breaks keeps what was good.
	if err := os.Rename(filepath.Join(r.dir, "web.yaml"), filepath.Join(r.dir, "renamed.yaml")); err != nil {
		t.Fatal(err)
	}
	r.write("beacon.yaml", podYAML("beacon", "n1", sleeper)) // once it is there, the rename was seen
	r.until("the beacon", func(View) bool { p, err := r.Find(t.Context(), "beacon"); return err == nil && p.Ready })
	r.write("renamed.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: {containers: [{name: a, image: 'nothing:1'}]}\n")
	r.until("the error in the log", func(View) bool {
		log, _ := os.ReadFile(LogFile(r.Name, "lab"))
		return strings.Contains(string(log), "renamed.yaml:1") && strings.Contains(string(log), "last good state stays")
	})
	if after, _ := readyOf(r.until("four pods still", count(4)), "web"); strings.Join(before, " ") != strings.Join(after, " ") {
		t.Errorf("a rename and a broken file changed the pods from %v to %v", before, after)
	}
	// A new template rolls through.
	r.write("renamed.yaml", deploymentYAML("web", 2, "v2"))
	v = r.until("the new version", func(v View) bool {
		got, _ := readyOf(v, "web")
		for _, p := range v.Pods {
			if p.Deployment == "web" && slices.Contains(before, p.Name) {
				return false
			}
		}
		return len(got) == 2
	})
	// A deleted pod comes back under another name and address.
	old, ips := readyOf(v, "web")
	if _, err := r.DeletePod(t.Context(), old[0]); err != nil {
		t.Fatal(err)
	}
	v = r.until("another pod", func(v View) bool {
		got, _ := readyOf(v, "web")
		return len(got) == 2 && !slices.Contains(got, old[0])
	})
	for _, p := range v.Pods {
		if p.Deployment == "web" && p.Name != old[1] && ips[p.IPs[0]] {
			t.Errorf("%s came back with the address %s", p.Name, p.IPs[0])
		}
	}
	// A bare pod comes back under its name.
	uid := func(v View) string {
		for _, p := range v.Pods {
			if p.Name == "client" && !p.Terminating && p.Ready {
				return p.UID + p.IPs[0]
			}
		}
		return ""
	}
	was := uid(v)
	if _, err := r.DeletePod(t.Context(), "client"); err != nil {
		t.Fatal(err)
	}
	r.until("the client again", func(v View) bool { is := uid(v); return is != "" && is != was })
	// A new node takes pods; a file that goes takes its objects along.
	r.write("n3.yaml", "apiVersion: v1\nkind: Node\nmetadata: {name: n3}\n"+podYAML("far", "n3", "containers: [{name: app, image: echo}]"))
	r.until("a pod on the new node", func(v View) bool { p, err := r.Find(t.Context(), "far"); return err == nil && p.Ready })
	far, err := r.Find(t.Context(), "far")
	if err != nil {
		t.Fatal(err)
	}
	if got := r.echo("client", "http://"+far.IPs[0]+":8080/"); got.Pod != "far" {
		t.Errorf("answered by %q", got.Pod)
	}
	for _, f := range []string{"n3.yaml", "renamed.yaml", "beacon.yaml"} {
		if err := os.Remove(filepath.Join(r.dir, f)); err != nil {
			t.Fatal(err)
		}
	}
	r.until("only the client", func(v View) bool { return len(v.Pods) == 1 && len(v.Nodes) == 2 })
}

func TestLabsSideBySide(t *testing.T) {
	files := map[string]string{"app.yaml": podYAML("client", "n1", sleeper) + podYAML("server", "n1", "containers: [{name: app, image: echo, env: [{name: VERSION, value: NAME}]}]")}
	labs := map[string]*running{}
	for _, name := range []string{"left", "right"} {
		labs[name] = start(t, name, map[string]string{"app.yaml": strings.ReplaceAll(files["app.yaml"], "NAME", name)})
	}
	for name, r := range labs {
		p, err := r.Find(t.Context(), "server")
		if err != nil {
			t.Fatal(err)
		}
		if got := r.echo("client", "http://"+p.IPs[0]+":8080/"); got.Version != name {
			t.Errorf("in lab %s, %s is answered by lab %q", name, p.IPs[0], got.Version)
		}
	}
	l, _ := labs["left"].Find(t.Context(), "server")
	r, _ := labs["right"].Find(t.Context(), "server")
	if l.IPs[0] != r.IPs[0] {
		t.Errorf("the labs use different addresses (%s, %s): this shows nothing", l.IPs[0], r.IPs[0])
	}
	if err := Run(t.Context(), testOptions(labs["left"].dir, labs["left"].Name), func() {}); err == nil || !strings.Contains(err.Error(), "is running") {
		t.Errorf("a second lab of one name: %v", err)
	}
}

func TestAKilledLabIsCleanedUp(t *testing.T) {
	needRoot(t)
	dir := filepath.Join(t.TempDir(), fmt.Sprintf("labtest-%d-killed", os.Getpid()))
	name := filepath.Base(dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	yaml := podYAML("server", "n1", "containers: [{name: app, image: echo}]") +
		podYAML("stubborn", "n1", "containers: [{name: app, command: [sh, -c, \"trap '' TERM; sleep "+marker(name)+" & setsid sleep "+marker(name)+"; wait\"]}]")
	if err := os.WriteFile(filepath.Join(dir, "app.yaml"), []byte(yaml), 0o644); err != nil {
		t.Fatal(err)
	}
	run := func() *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), childVariable+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		word := make([]byte, 6)
		if _, err := out.Read(word); err != nil || string(word) != "ready\n" {
			t.Fatalf("the lab said %q: %v", word, err)
		}
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
	}
	kill(run())
	if left := traces(t, name, dir); len(left) < 4 {
		t.Errorf("the killed lab left only %v: this shows nothing", left)
	}
	second := run() // cleans up after the first by itself
	kill(second)
	if err := Down(t.Context(), name); err != nil {
		t.Error(err)
	}
	if left := traces(t, name, dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := Down(t.Context(), name); err != nil {
		t.Errorf("down of what is not there: %v", err)
	}
}
