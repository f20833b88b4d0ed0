package differential

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// randomTables is how many route tables a run makes; each has up to randomRoutes.
const randomTables, randomRoutes, randomTries = 150, 14, 60

// Random tables send random requests where Envoy sends them, and every route is hit.
func TestRandomTables(t *testing.T) {
	w := newWorld(t)
	for i := range 3 {
		w.cluster(fmt.Sprintf("up%d", i), "", i)
	}
	w.rds("table", "virtual_hosts: []")
	port := w.http("rds: {route_config_name: @table, config_source: {ads: {}, resource_api_version: V3}}", "")
	w.load()
	random := rand.New(rand.NewPCG(seed, 1))
	kept := map[*proxy]*keptConn{envoyProxy: {p: envoyProxy, port: port}, ourProxy: {p: ourProxy, port: port}}
	defer kept[envoyProxy].close()
	defer kept[ourProxy].close()
	routes, hit, requests := 0, 0, 0
	for n := range randomTables {
		g := &generator{random, w}
		table := g.table(n)
		w.push(table.config, kept, n)
		for i := range table.routes {
			routes++
			for try := range randomTries {
				r := table.request(g, i, try)
				c := w.sendKept(fmt.Sprintf("table %d for route %d: %s", n, i, describe(r)), kept, r)
				requests++
				if table.was(i, c) {
					hit++
					break
				}
				if try == randomTries-1 {
					t.Errorf("table %d: route %d was not hit: %v", n, i, table.routes[i].config)
				}
			}
			c := table.request(g, random.IntN(len(table.routes)), random.IntN(randomTries))
			g.spoil(&c)
			w.sendKept(fmt.Sprintf("table %d, spoilt: %s", n, describe(c)), kept, c)
			requests++
		}
	}
	w.compare()
	w.compareStats()
	t.Logf("%d tables, %d of %d routes hit, %d requests", randomTables, hit, routes, requests)
	fmt.Printf("differential: random: %d tables, %d of %d routes hit, %d requests\n", randomTables, hit, routes, requests)
}

// push gives both the table and waits until they answer by it.
func (w *world) push(config map[string]any, kept map[*proxy]*keptConn, n int) {
	w.t.Helper()
	version := fmt.Sprintf("version %d", n)
	hosts := config["virtual_hosts"].([]any)
	config["virtual_hosts"] = append(hosts, map[string]any{"name": "version", "domains": []any{"version.test"}, "routes": []any{map[string]any{"match": map[string]any{"prefix": "/"}, "direct_response": map[string]any{"status": 200, "body": map[string]any{"inline_string": version}}}}})
	for _, p := range proxies() {
		m := parse(config, &routev3.RouteConfiguration{})
		m.Name = w.nameOf("table")
		p.ads.set(map[string]map[string]proto.Message{routeType: {m.Name: m}}, nil)
	}
	for _, p := range proxies() {
		p.ads.settle(w.t)
		until(w.t, p.name+" serves by "+version, func() bool {
			return kept[p].ask(request{host: "version.test"}.withDefaults(), "version").body == version
		})
	}
}

func (w *world) sendKept(name string, kept map[*proxy]*keptConn, r request) *comparison {
	c := &comparison{name: name, request: r.withDefaults(), marks: map[*proxy]string{}, answers: map[*proxy]answer{}}
	number := lastCase.Add(1)
	for _, p := range proxies() {
		c.marks[p] = fmt.Sprintf("%s%06d", p.mark, number)
		c.answers[p] = kept[p].ask(c.request, c.marks[p])
	}
	w.cases = append(w.cases, c)
	return c
}

// keptConn is a connection for many requests.
type keptConn struct {
	p    *proxy
	port int
	c    net.Conn
	in   *bufio.Reader
}

func (k *keptConn) close() {
	if k.c != nil {
		k.c.Close()
		k.c = nil
	}
}

func (k *keptConn) ask(r request, mark string) answer {
	if k.c == nil {
		c, err := net.Dial("tcp", net.JoinHostPort(k.p.host, strconv.Itoa(k.port)))
		if err != nil {
			return answer{end: "connect"}
		}
		k.c, k.in = c, bufio.NewReader(c)
	}
	_ = k.c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(k.c, r.text(mark)); err != nil {
		k.close()
		return k.ask(r, mark)
	}
	a := readAnswer(k.in, r.method)
	if a.end != "" || strings.EqualFold(valueOf(a.fields, "connection"), "close") {
		k.close()
	}
	return a
}
