// Package dual is Fairlead on real clusters with IPv6. In one with both IP families Services have
// IPv6 first, the pods of one node IPv4 and those of the other IPv6; one has IPv6 alone.
// `make test-kube` runs it; elsewhere it is skipped.
package dual

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/test/capture"
	"github.com/fairlead-mesh/fairlead/test/kube/apps"
	"github.com/fairlead-mesh/fairlead/test/kube/cluster"
	"github.com/fairlead-mesh/fairlead/test/kube/mesh"
)

// pod serves HTTP and has curl; its kubelet asks it at its first address every second.
const pod = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: NAME}
---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: NAME}}
spec:
  serviceAccountName: NAME
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  containers:
  - name: echo
    image: "` + apps.Tools + `"
    command: [fairlead, app, echo, --http, "8080"]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1, timeoutSeconds: 5, failureThreshold: 1}
`

// services are all kinds of those that have IPv6.
const services = `
apiVersion: v1
kind: Service
metadata: {name: both-NAME}
spec: {selector: {app: NAME}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: six-NAME}
spec: {selector: {app: NAME}, ipFamilyPolicy: SingleStack, ipFamilies: [IPv6], ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless-NAME}
spec: {selector: {app: NAME}, clusterIP: None, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 8080}]}
`

// four is a service without IPv6.
const four = `
---
apiVersion: v1
kind: Service
metadata: {name: four-NAME}
spec: {selector: {app: NAME}, ipFamilyPolicy: SingleStack, ipFamilies: [IPv4], ports: [{name: http, port: 80, targetPort: 8080}]}
`

// hasty asks with its first act.
const hasty = `
apiVersion: v1
kind: Pod
metadata: {name: hasty}
spec:
  nodeName: n1
  restartPolicy: Never
  containers: [{name: curl, image: "` + apps.Tools + `", command: [curl, -sS, -m, "5", "http://[VIP]/MARK"]}]
`

const ns, outside = "dual", "outside"

// world is the mesh and the two pods that call each other: left has IPv4 first, right IPv6.
type world struct {
	*testing.T
	*mesh.Mesh
	families cluster.Families
	rounds   int
}

// built are the images, which the tests share.
var built mesh.Shared

func TestMain(m *testing.M) { os.Exit(built.Run(m)) }

// begin is a mesh with the pods and services, none enrolled.
func begin(t *testing.T, name string, families cluster.Families) *world {
	t.Helper()
	o := cluster.Options{Name: name, Nodes: 2, Families: families}
	cluster.Asked(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	m, err := mesh.StartOn(ctx, o, built.Built(t, "../../.."))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := &world{T: t, Mesh: m, families: families}
	for _, space := range []string{ns, outside} {
		w.Do(t, "create", "namespace", space)
		w.pod(space, "left", "n1")
	}
	w.pod(ns, "right", "n2")
	text := services
	if families == cluster.Dual {
		text += four
	}
	for _, app := range []string{"left", "right"} {
		w.Apply(t, strings.ReplaceAll(text, "NAME", app), "-n", ns)
	}
	w.wait(ns)
	w.wait(outside)
	for app, six := range map[string]bool{"left": families == cluster.IPv6, "right": true} {
		if first := w.addresses(app)[0]; first.Is6() != six {
			t.Errorf("%s is asked by its kubelet at %s: IPv6 is %t", app, first, six)
		}
	}
	return w
}

// stage is a part of a test, after those before it.
func (w *world) stage(what string, run func(*world)) {
	w.Helper()
	w.rounds++
	part := *w
	if !w.Run(what, func(t *testing.T) { part.T = t; run(&part) }) {
		w.FailNow()
	}
}

func TestPodsOfBothFamiliesAreInTheMesh(t *testing.T) {
	w := begin(t, "dual", cluster.Dual)
	w.stage("without the label all of it is in clear", (*world).plain)
	w.stage("with it each connection of both families is in mutual TLS", (*world).meshed)
	w.stage("a pod is in the mesh before its first act", (*world).firstAct)
	w.stage("STRICT refuses strangers of both families, and lets probes pass", (*world).strict)
	w.stage("a policy may name ranges of IPv6", (*world).ranges)
	w.stage("a waypoint is reached by both families", (*world).waypoint)
	w.stage("without the label it is in clear again", (*world).left)
}

func TestPodsOfIPv6AloneAreInTheMesh(t *testing.T) {
	w := begin(t, "six", cluster.IPv6)
	w.stage("without the label all of it is in clear", (*world).plain)
	w.stage("with it each connection is in mutual TLS", (*world).meshed)
	w.stage("STRICT refuses strangers, and lets probes pass", (*world).strict)
	w.stage("a waypoint is reached", (*world).waypoint)
}

func (w *world) pod(space, name, node string) {
	w.Helper()
	w.Apply(w.T, strings.NewReplacer("NAME", name, "NODE", node).Replace(pod), "-n", space)
}

// wait waits until a namespace's pods are ready.
func (w *world) wait(space string) {
	w.Helper()
	w.Do(w.T, "-n", space, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=80s")
}

// addresses are a pod's, the first first.
func (w *world) addresses(pod string) []netip.Addr {
	w.Helper()
	return w.parsed(w.Do(w.T, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status.podIPs[*].ip}"))
}

// vips are a service's cluster IPs.
func (w *world) vips(service string) []netip.Addr {
	w.Helper()
	return w.parsed(w.Do(w.T, "-n", ns, "get", "service", service, "-o", "jsonpath={.spec.clusterIPs[*]}"))
}

func (w *world) parsed(fields string) []netip.Addr {
	w.Helper()
	var all []netip.Addr
	for field := range strings.FieldsSeq(fields) {
		a, err := netip.ParseAddr(field)
		if err != nil {
			w.Fatal(err)
		}
		all = append(all, a)
	}
	if len(all) == 0 {
		w.Fatal("no address")
	}
	return all
}

// way is one way to reach a pod: a URL's host, and the family that a name is to be asked for.
type way struct {
	host   string
	family string
}

func (v way) String() string { return strings.TrimSpace(v.host + " " + v.family) }

// to are all ways to a pod.
func (w *world) to(pod string) []way {
	w.Helper()
	var all []way
	for _, a := range w.addresses(pod) {
		all = append(all, way{host: netip.AddrPortFrom(a, 8080).String()})
	}
	for _, service := range w.kinds() {
		for _, a := range w.vips(service + pod) {
			all = append(all, way{host: netip.AddrPortFrom(a, 80).String()})
		}
	}
	all = append(all, way{"both-" + pod + "." + ns, "-6"}, way{"six-" + pod + "." + ns, ""}, way{"headless-" + pod + "." + ns + ":8080", "-6"})
	if w.families == cluster.Dual {
		all = append(all, way{"both-" + pod + "." + ns, "-4"}, way{"headless-" + pod + "." + ns + ":8080", "-4"})
	}
	return all
}

// kinds are the names of a pod's services with cluster IPs, up to the pod's name.
func (w *world) kinds() []string {
	if w.families == cluster.Dual {
		return []string{"both-", "six-", "four-"}
	}
	return []string{"both-", "six-"}
}

// ask says mark on the way from a pod, and returns the head and the body of the answer.
func (w *world) ask(space, from string, to way, mark string) (string, error) {
	args := []string{"curl", "-sS", "-i", "-g", "-m", "5"}
	if to.family != "" {
		args = append(args, to.family)
	}
	out, err := w.Exec(w.Context(), space, from, append(args, "http://"+to.host+"/"+mark)...)
	if err == nil && !strings.Contains(out, " 200 OK") {
		err = errors.New(out)
	}
	return out, err
}

// askAll asks on all ways, with the number of the way behind mark, and returns what curl wrote:
// 200, that the connection was reset by its peer, or what else went wrong.
func (w *world) askAll(space, from string, ways []way, mark string) []string {
	w.Helper()
	var script strings.Builder
	for i, to := range ways {
		// A reset may come before curl looks whether it is connected: its last word is that it is not, then,
		// and why is said before.
		fmt.Fprintf(&script, "out=$(curl -v -g -m 5 -o /dev/null -w '%%{http_code} %%{errormsg}' %s 'http://%s/%s-%d-' 2>/said)\n", to.family, to.host, mark, i)
		script.WriteString(`case "$(cat /said)" in *"reset by peer"*) echo "reset by peer";; *) echo "$out";; esac` + "\n")
	}
	out, err := w.Exec(w.Context(), space, from, "sh", "-c", script.String()+"true")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if err != nil || len(lines) != len(ways) {
		w.Fatalf("%d answers of %d ways (%v): %s", len(lines), len(ways), err, out)
	}
	return lines
}

// heard is what came of what was said on all ways between the two pods.
type heard struct {
	clear  map[string]bool // by the way: whether it was in clear between the nodes
	wrong  []string        // the ways that did not answer, and how
	secure map[bool]bool   // by "is IPv6": whether a tunnel was seen
}

// say asks on all ways between the two pods.
func (w *world) say(prefix string) heard {
	w.Helper()
	wire, err := capture.Start(w.Nodes[0].NetNS().Path())
	if err != nil {
		w.Fatal(err)
	}
	h := heard{clear: map[string]bool{}, secure: map[bool]bool{}}
	marks := map[string]string{}
	for from, to := range map[string]string{"left": "right", "right": "left"} {
		ways := w.to(to)
		mark := fmt.Sprintf("%s-%d-%s", prefix, w.rounds, from)
		for i, answer := range w.askAll(ns, from, ways, mark) {
			what := fmt.Sprintf("%s to %s", from, ways[i])
			marks[fmt.Sprintf("%s-%d-", mark, i)] = what
			if strings.TrimSpace(answer) != "200" {
				h.wrong = append(h.wrong, what+": "+answer)
			}
		}
	}
	if err := wire.Stop(); err != nil {
		w.Fatal(err)
	}
	for mark, what := range marks {
		h.clear[what] = false
		for _, p := range wire.Packets() {
			if p.Device == "eth0" && strings.Contains(string(p.Payload), mark) {
				h.clear[what] = true
			}
		}
	}
	for _, p := range wire.Packets() {
		if p.Device == "eth0" && p.Source.Port() == 15008 && len(p.Payload) > 0 {
			h.secure[p.Source.Addr().Unmap().Is6()] = true
		}
	}
	return h
}

// inClear is the error of what was not said in clear.
func (w *world) inClear() error {
	w.Helper()
	h := w.say("plain")
	for what, is := range h.clear {
		if !is {
			h.wrong = append(h.wrong, what+": the capture does not have what was said")
		}
	}
	if len(h.wrong) > 0 {
		return errors.New(strings.Join(h.wrong, "\n"))
	}
	return nil
}

func (w *world) plain() {
	if err := w.inClear(); err != nil {
		w.Errorf("the control proves nothing: %v", err)
	}
}

func (w *world) enrolled(space string) {
	w.Helper()
	w.Do(w.T, "-n", space, "wait", `--for=jsonpath={.metadata.annotations.ambient\.istio\.io/redirection}=enabled`, "pod", "-l", "app", "--timeout=60s")
}

// covered is the error of what is not as each connection must be in the mesh.
func (w *world) covered() error {
	w.Helper()
	h := w.say("meshed")
	for what, is := range h.clear {
		if is {
			h.wrong = append(h.wrong, what+": said in clear")
		}
	}
	if !h.secure[true] || h.secure[false] != (w.families == cluster.Dual) {
		h.wrong = append(h.wrong, fmt.Sprintf("tunnels by IPv4: %t, by IPv6: %t", h.secure[false], h.secure[true]))
	}
	if len(h.wrong) > 0 {
		return errors.New(strings.Join(h.wrong, "\n"))
	}
	return nil
}

func (w *world) meshed() {
	w.Do(w.T, "label", "namespace", ns, "istio.io/dataplane-mode=ambient")
	w.enrolled(ns)
	// A pod's agent may hear last that the other is in the mesh, too.
	mesh.Eventually(w.T, "all of it is in mutual TLS", w.covered)
}

// since is when the pods became ready, last.
func (w *world) since() string {
	w.Helper()
	return w.Do(w.T, "-n", ns, "get", "pods", "left", "right", "-o", `jsonpath={.items[*].status.conditions[?(@.type=="Ready")]}`)
}

func (w *world) strict() {
	before := w.since()
	ways := w.to("right")
	for i, answer := range w.askAll(outside, "left", ways, "permissive") {
		if strings.TrimSpace(answer) != "200" {
			w.Errorf("before it, a stranger to %s: %s", ways[i], answer)
		}
	}
	w.Apply(w.T, "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default}, spec: {mtls: {mode: STRICT}}}", "-n", ns)
	mesh.Eventually(w.T, "a stranger is refused", func() error {
		for i, answer := range w.askAll(outside, "left", ways, "strict") {
			if !strings.Contains(answer, "reset by peer") {
				return fmt.Errorf("%s: %s", ways[i], answer)
			}
		}
		return nil
	})
	if err := w.covered(); err != nil {
		w.Error(err)
	}
	// Probes: those that come now, and the first of pods that were never without the policy.
	w.pod(ns, "late-left", "n1")
	w.pod(ns, "late-right", "n2")
	w.wait(ns)
	w.enrolled(ns)
	if after := w.since(); after != before {
		w.Errorf("a probe failed: %s\nbefore: %s", after, before)
	}
}

func (w *world) firstAct() {
	vip := w.vips("six-right")[0].String()
	wire, err := capture.Start(w.Nodes[0].NetNS().Path())
	if err != nil {
		w.Fatal(err)
	}
	for _, space := range []string{outside, ns} {
		w.Apply(w.T, strings.NewReplacer("VIP", vip, "MARK", "said-at-once-"+space).Replace(hasty), "-n", space)
		w.Do(w.T, "-n", space, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/hasty", "--timeout=60s")
		w.Do(w.T, "-n", space, "delete", "pod", "hasty", "--wait=false")
	}
	if err := wire.Stop(); err != nil {
		w.Fatal(err)
	}
	if !wire.Contains("said-at-once-" + outside) {
		w.Error("the capture does not have what the pod outside said: it proves nothing")
	}
	if wire.Contains("said-at-once-" + ns) {
		w.Error("a pod of the mesh said its first words in clear")
	}
}

func (w *world) ranges() {
	var six netip.Addr
	for _, a := range w.addresses("left") {
		if a.Is6() {
			six = a
		}
	}
	w.Apply(w.T, fmt.Sprintf(`{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, metadata: {name: range}, spec: {
  selector: {matchLabels: {app: right}}, action: DENY, rules: [{from: [{source: {ipBlocks: ["%s"]}}]}]}}`, netip.PrefixFrom(six, 64).Masked()), "-n", ns)
	name := func(family string) way { return way{"both-right." + ns, family} }
	mesh.Eventually(w.T, "the policy denies", func() error {
		if out, err := w.ask(ns, "left", name("-6"), "denied"); err == nil {
			return errors.New(out)
		}
		return nil
	})
	if _, err := w.ask(ns, "left", name("-4"), "allowed"); err != nil {
		w.Errorf("by IPv4, which the policy does not name: %v", err)
	}
	w.Do(w.T, "-n", ns, "delete", "authorizationpolicy", "range")
	mesh.Eventually(w.T, "without the policy it passes", func() error {
		_, err := w.ask(ns, "left", name("-6"), "again")
		return err
	})
}

func (w *world) waypoint() {
	if out, err := w.Fairlead(w.Context(), "waypoint", "apply", "-n", ns, "--wait"); err != nil {
		w.Fatal(err, out)
	}
	w.Do(w.T, "-n", ns, "rollout", "status", "deploy/waypoint", "--timeout=80s")
	for from, to := range map[string]string{"left": "right", "right": "left"} {
		for _, service := range w.kinds() {
			w.Do(w.T, "-n", ns, "label", "service", service+to, "istio.io/use-waypoint=waypoint")
			for _, vip := range w.vips(service + to) {
				mesh.Eventually(w.T, fmt.Sprintf("%s to %s of %s passes the waypoint", from, vip, to), func() error {
					out, err := w.ask(ns, from, way{host: netip.AddrPortFrom(vip, 80).String()}, "by-waypoint")
					if err == nil && !strings.Contains(out, "istio-envoy") {
						err = errors.New(out)
					}
					return err
				})
			}
		}
	}
	if err := w.covered(); err != nil {
		w.Error(err)
	}
}

func (w *world) left() {
	w.Do(w.T, "label", "namespace", ns, "istio.io/dataplane-mode-")
	w.Do(w.T, "-n", ns, "label", "service", "--all", "istio.io/use-waypoint-")
	// The pods leave one by one; until the last has, STRICT may refuse those that have.
	mesh.Eventually(w.T, "all of it is in clear", w.inClear)
}
