package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/netns"
)

const tourCluster = `
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: a}}
---
apiVersion: v1
kind: Node
metadata: {name: n2, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: b}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Namespace
metadata: {name: desk, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: http-more, port: 81, targetPort: 8080}, {name: http-tls, port: 82, targetPort: 8443}, {name: tcp, port: 7000, targetPort: 7000}, {name: any, port: 83, targetPort: 7000}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: shop}
spec:
  selector: {app: ratings}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 90, targetPort: 8080}, {name: tcp, port: 7000, targetPort: 7000}]
`

// tourPod is a pod of the tour; those with an app serve it.
type tourPod struct{ namespace, name, node, app, version, account string }

var tourPods = []tourPod{
	{"shop", "client", "n1", "", "", "default"},
	{"shop", "reader", "n1", "", "", "reader"},
	{"desk", "clerk", "n1", "", "", "default"},
	{"shop", "one", "n1", "reviews", "v1", "default"},
	{"shop", "two", "n2", "reviews", "v2", "default"},
	{"shop", "stars", "n2", "ratings", "v1", "default"},
}

// tour is a cluster whose servers say what they were asked for.
type tour struct {
	*lab
	engine  string
	clients map[string]*netns.NS
	address map[string]string // of services, by name
	flaky   atomic.Int64      // requests to /flaky, of which two in three fail
	mirrors atomic.Int64      // requests that ratings saw
}

func newTour(t *testing.T, engine string) *tour {
	t.Helper()
	yaml := tourCluster + waypointOf("waypoint", ", annotations: {fairlead.dev/waypoint-engine: "+engine+"}", "")
	for _, p := range tourPods {
		labels := fmt.Sprintf(", labels: {role: %s}", p.account)
		if p.app != "" {
			labels = fmt.Sprintf(", labels: {app: %s, version: %s}", p.app, p.version)
		}
		yaml += fmt.Sprintf("---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: %s%s}\nspec:\n  nodeName: %s\n  serviceAccountName: %s\n  containers: [{name: app, image: curlimages/curl}]\n",
			p.name, p.namespace, labels, p.node, p.account)
	}
	w := &tour{lab: newLab(t, yaml), engine: engine, clients: map[string]*netns.NS{}, address: map[string]string{}}
	for _, p := range tourPods {
		ns := w.inside(t, p.namespace+"/"+p.name)
		if p.app == "" {
			w.clients[p.name] = ns
			continue
		}
		w.serve(t, ns, p.name)
	}
	for _, service := range []string{"reviews", "ratings"} {
		w.address[service] = w.clusterIP(t, "shop", service)
	}
	eventually(t, "the waypoint serves", func() bool { return strings.HasPrefix(w.ask("GET reviews/", nil), "200") })
	return w
}

// serve answers HTTP of either version on 8080, and in TLS on 8443. On 7000 it says its
// name and the first line that it gets.
func (w *tour) serve(t *testing.T, ns *netns.NS, name string) {
	t.Helper()
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &httptest.Server{Listener: listenIn(t, ns, ":8080"), Config: &http.Server{Protocols: protocols, Handler: w.saying(name)}}
	s.Start()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	secure := &httptest.Server{Listener: listenIn(t, ns, ":8443"), Config: &http.Server{Handler: w.saying(name), ErrorLog: log.New(io.Discard, "", 0)}}
	secure.StartTLS()
	t.Cleanup(func() { secure.CloseClientConnections(); secure.Close() })
	bytes := listenIn(t, ns, ":7000")
	go func() {
		for {
			c, err := bytes.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(5 * time.Second))
				line, _ := bufio.NewReader(c).ReadString('\n')
				fmt.Fprintf(c, "tcp of %s: %s", name, line)
			}()
		}
	}()
}

// saying is a server that answers with what it was asked.
func (w *tour) saying(name string) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if name == "stars" {
			w.mirrors.Add(1)
		}
		rw.Header().Set("x-backend", name)
		rw.Header().Set("x-given", "by the server")
		switch {
		case r.URL.Path == "/slow":
			select {
			case <-time.After(3 * time.Second):
			case <-r.Context().Done():
			}
		case r.URL.Path == "/flaky" && w.flaky.Add(1)%3 != 0:
			rw.WriteHeader(http.StatusServiceUnavailable)
			return
		case r.Header.Get("content-type") == "application/grpc":
			rw.Header().Set("content-type", "application/grpc")
			rw.Header().Set(http.TrailerPrefix+"grpc-status", "0")
		}
		fmt.Fprintf(rw, "asked: %s %s %s\n", r.Method, r.Host, r.RequestURI)
		for _, key := range slices.Sorted(maps.Keys(r.Header)) {
			fmt.Fprintf(rw, "> %s: %s\n", strings.ToLower(key), strings.Join(r.Header[key], ", "))
		}
	}
}

// ask sends a request, such as "GET reviews:81/path" or "reader: GET reviews/", and says
// in lines what came back: the status and the server, what it saw, the response's fields.
func (w *tour) ask(request string, header map[string]string) string {
	who, rest, found := strings.Cut(request, ": ")
	if !found {
		who, rest = "client", request
	}
	method, to, _ := strings.Cut(rest, " ")
	host, path, _ := strings.Cut(to, "/")
	service, port, found := strings.Cut(host, ":")
	if !found {
		port = "80"
	}
	tr := &http.Transport{DisableCompression: true, DialContext: func(context.Context, string, string) (net.Conn, error) {
		return dialFrom(w.clients[who], net.JoinHostPort(w.address[service], port), 5*time.Second)
	}}
	defer tr.CloseIdleConnections()
	if strings.Contains(header["content-type"], "grpc") {
		tr.Protocols = new(http.Protocols)
		tr.Protocols.SetUnencryptedHTTP2(true)
	}
	r, err := http.NewRequest(method, "http://"+host+"/"+path, nil)
	if err != nil {
		return err.Error()
	}
	for key, value := range header {
		if r.Header.Set(key, value); key == "host" {
			r.Host = value
			r.Header.Del(key)
		}
	}
	start := time.Now()
	res, err := tr.RoundTrip(r)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	out := fmt.Sprintf("%d %s\n%s\n", res.StatusCode, res.Header.Get("x-backend"), body)
	if err != nil {
		out += err.Error() + "\n"
	}
	maps.Copy(res.Header, res.Trailer)
	for _, key := range slices.Sorted(maps.Keys(res.Header)) {
		out += fmt.Sprintf("< %s: %s\n", strings.ToLower(key), strings.Join(res.Header[key], ", "))
	}
	return out + fmt.Sprintf("took %d ms\n", time.Since(start).Milliseconds())
}

// connect sends a line to a place such as "reviews" or "clerk: reviews:83", port 7000
// unless there is one, and says what comes back.
func (w *tour) connect(place string) string {
	who, to, found := strings.Cut(place, ": ")
	if !found {
		who, to = "client", place
	}
	service, port, found := strings.Cut(to, ":")
	if !found {
		port = "7000"
	}
	c, err := dialFrom(w.clients[who], net.JoinHostPort(w.address[service], port), 5*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(c, "hello")
	said, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(said)
}

// stop is a sight of the tour: objects, and what they do to requests.
type stop struct {
	name, yaml string
	sights     []sight
	// more says what is not as it should be, or "".
	more func(*tour) string
}

// sight is a request and a pattern of what comes back; one that begins with ! must not
// be there.
type sight struct {
	request string
	header  map[string]string
	want    []string
}

// missing is what is not as it should be, or "".
func (w *tour) missing(s stop) string {
	for _, sight := range s.sights {
		got := w.ask(sight.request, sight.header)
		for _, want := range sight.want {
			pattern, not := strings.CutPrefix(want, "!")
			if regexp.MustCompile("(?m)"+pattern).MatchString(got) == not {
				return fmt.Sprintf("%s %v: want %s in\n%s", sight.request, sight.header, want, got)
			}
		}
	}
	if s.more != nil {
		return s.more(w)
	}
	return ""
}
