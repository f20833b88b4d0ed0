package differential

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// comparison is one request, sent to both proxies.
type comparison struct {
	name    string
	port    int
	request request
	loose   loose
	sorted  bool // tries come in any order: they are compared by endpoint
	marks   map[*proxy]string
	answers map[*proxy]answer
}

// loose is what of a case is not compared, since it is drawn at random.
type loose uint

const (
	anyEndpoint loose = 1 << iota // which of a cluster's endpoints is tried
	anyTries                      // how many tries, and when
	noLog                         // the access log
	anyEnd                        // in which way a connection ends that carried nothing
)

// send asks both proxies the same, one after the other.
func (w *world) send(name string, port int, r request, how ...loose) *comparison {
	c := &comparison{name: name, port: port, request: r.withDefaults(), marks: map[*proxy]string{}, answers: map[*proxy]answer{}}
	for _, l := range how {
		c.loose |= l
	}
	number := lastCase.Add(1)
	var both sync.WaitGroup
	var mu sync.Mutex
	for _, p := range proxies() {
		mark := fmt.Sprintf("%s%06d", p.mark, number)
		c.marks[p] = mark
		both.Go(func() {
			a := ask(p, port, c.request, mark)
			mu.Lock()
			c.answers[p] = a
			mu.Unlock()
		})
	}
	both.Wait()
	w.mu.Lock()
	w.cases = append(w.cases, c)
	w.mu.Unlock()
	return c
}

// batch is requests that are sent at the same time, as those that wait for timeouts.
type batch struct {
	w     *world
	work  sync.WaitGroup
	slots chan struct{}
}

func (w *world) batch(n int) *batch { return &batch{w: w, slots: make(chan struct{}, n)} }

func (b *batch) send(name string, port int, r request, how ...loose) {
	b.slots <- struct{}{}
	b.work.Go(func() {
		defer func() { <-b.slots }()
		b.w.send(name, port, r, how...)
	})
}

var (
	uuid   = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	number = regexp.MustCompile(`^[0-9]+$`)
	clock  = regexp.MustCompile(`^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT$`)
)

// normal is a field's value without what is of the moment. These are all that are
// normalised.
func normal(name, value string) string {
	switch {
	case name == "date" && clock.MatchString(value):
		return "(date)"
	case name == "x-request-id" && uuid.MatchString(value):
		return "(uuid)"
	case name == "x-envoy-upstream-service-time" && number.MatchString(value):
		return "(number)"
	case name == "x-case":
		return "(case)"
	}
	if name == "x-forwarded-for" { // Envoy puts its own address where a client on the loopback stood
		value = strings.ReplaceAll(value, machine(), "127.0.0.1")
	}
	// The listeners of the two have addresses of their own.
	return strings.NewReplacer(envoyProxy.host, "(proxy)", ourProxy.host, "(proxy)").Replace(value)
}

// machine is this machine's own address, as Envoy finds it.
var machine = sync.OnceValue(func() string {
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() && !p.Addr().IsLoopback() {
			return p.Addr().String()
		}
	}
	return "127.0.0.1"
})

// outcome is what came of a case, as keys and values.
func (c *comparison) outcome(p *proxy) map[string]string {
	out := map[string]string{}
	a := c.answers[p]
	out["status"] = fmt.Sprint(a.status)
	out["end"] = a.end
	if c.loose&anyEnd != 0 && a.status == 0 && (a.end == "connect" || a.end == "closed") {
		out["end"] = "reset"
	}
	out["body"] = normalBody(a.body, c.marks[p])
	out["infos"] = fmt.Sprint(a.infos)
	if c.request.more != "" || c.request.all {
		out["rest"] = a.rest
	}
	addFields(out, "header ", a.fields)
	addFields(out, "trailer ", a.trailers)
	tries := upstreams.seenOf(c.marks[p])
	if c.sorted {
		slices.SortStableFunc(tries, func(a, b seen) int { return a.endpoint - b.endpoint })
	}
	if c.loose&anyTries == 0 {
		out["tries"] = fmt.Sprint(len(tries))
	}
	for i, s := range tries {
		if c.loose&anyTries != 0 {
			break
		}
		key := fmt.Sprintf("try %d ", i+1)
		if c.loose&anyEndpoint == 0 {
			out[key+"endpoint"] = fmt.Sprint(s.endpoint)
		}
		out[key+"request"] = s.method + " " + s.path + " " + s.proto
		out[key+"authority"] = s.authority
		if !strings.Contains(c.request.script, "early") { // what comes of a request that has been answered is chance
			out[key+"body"] = s.body
			out[key+"broken"], _, _ = strings.Cut(s.broken, ": ") // the rest is of the operating system
		}
		addFields(out, key+"header ", s.fields)
		if i > 0 && out[key+"header x-envoy-expected-rq-timeout-ms"] != "" {
			out[key+"header x-envoy-expected-rq-timeout-ms"] = "(what is left)"
		}
		addFields(out, key+"trailer ", s.trailers)
	}
	if c.loose&noLog == 0 {
		c.logged(p, out)
	}
	return out
}

func normalBody(body, mark string) string {
	body = strings.ReplaceAll(body, mark, "(case)")
	if len(body) > 200 {
		return fmt.Sprintf("%.200s... %d bytes", body, len(body))
	}
	return body
}

// logged adds the fields of the access log.
func (c *comparison) logged(p *proxy, out map[string]string) {
	records := p.recordsOf(c.marks[p])
	if len(records) != 1 {
		out["log"] = fmt.Sprintf("%d lines", len(records))
		return
	}
	for name := range logFormat {
		if name == "case" || name == "prefix" || name == "upstream" && c.loose&(anyEndpoint|anyTries) != 0 || name == "attempts" && c.loose&anyTries != 0 {
			continue
		}
		if v, ok := records[0][name]; ok && v != nil {
			value := strings.ReplaceAll(fmt.Sprint(v), c.marks[p], "(case)")
			if name == "flags" { // they are a set
				flags := strings.Split(value, ",")
				slices.Sort(flags)
				value = strings.Join(flags, ",")
			}
			out["log "+name] = value
		} else {
			out["log "+name] = "-"
		}
	}
}

func addFields(out map[string]string, prefix string, fields []field) {
	all := map[string][]string{}
	for _, f := range fields {
		all[f.Name] = append(all[f.Name], normal(f.Name, f.Value))
	}
	for name, values := range all {
		if name == "x-forwarded-for" || name == "via" || name == "x-request-id" { // Envoy writes these lists into one line
			values = strings.Split(strings.ReplaceAll(strings.Join(values, ","), " ", ""), ",")
		}
		out[prefix+name] = strings.Join(values, " | ")
	}
}

// compare waits for the access logs, and reports what is not equal.
func (w *world) compare() {
	w.t.Helper()
	w.awaitLogs()
	n := 0
	for _, c := range w.cases {
		if len(c.answers) != len(proxies()) {
			continue
		}
		n++
		for range 2 { // a machine that is busy for a moment is no difference
			if len(w.unknown(c.name, c.outcome(envoyProxy), c.outcome(ourProxy))) == 0 || c.port == 0 {
				break
			}
			w.again++
			inOrder := c.sorted
			c = w.send(c.name, c.port, c.request, c.loose)
			c.sorted = inOrder
			w.awaitLogs()
		}
		w.differ(c.name, c.outcome(envoyProxy), c.outcome(ourProxy))
	}
	if w.again > 0 {
		w.t.Logf("%d requests were sent again", w.again)
	}
	w.t.Logf("%d requests compared", n)
	w.compareStrays()
	count(w.name, n)
	w.cases = nil
}

// compareStrays compares what was logged of requests without a number.
func (w *world) compareStrays() {
	if w.again > 0 {
		w.t.Log("lines of no request are not compared: they tell what a busy machine did")
		return
	}
	settled := time.Now().Add(time.Second)
	for _, prefix := range w.prefixes {
		for !maps.Equal(envoyProxy.strays(prefix), ourProxy.strays(prefix)) && time.Now().Before(settled) {
			<-time.After(20 * time.Millisecond)
			for _, p := range proxies() {
				if err := p.readLog(); err != nil {
					w.t.Fatal(err)
				}
			}
		}
		w.differ("strays", envoyProxy.strays(prefix), ourProxy.strays(prefix))
	}
}

// strays are the log's lines of a connection manager or TCP proxy that are of no case, by
// what they say, and how many of each.
func (p *proxy) strays(prefix string) map[string]string {
	lines := map[string]int{}
	for _, r := range p.recordsOf("of " + prefix) {
		if r["method"] != nil {
			lines[fmt.Sprintf("log of none: %v %v %v %v", r["code"], r["flags"], r["details"], r["method"])]++
			continue
		}
		sent, _ := r["sent"].(float64)
		if r["sni"] != nil {
			sent = 0 // a handshake's length is not always the same
		}
		if r["received"] == 0.0 && sent == 0 && r["details"] == nil && r["termination"] == nil {
			continue // it was looked for whether somebody listens
		}
		lines[fmt.Sprintf("log of a connection: %v %v %v cluster %v received %v sent %v sni %v", r["flags"], r["details"], r["termination"], r["cluster"], r["received"], sent, r["sni"])]++
	}
	out := map[string]string{}
	for l, n := range lines {
		out[l] = fmt.Sprint(n)
	}
	return out
}

func (w *world) awaitLogs() {
	last := time.Now() // when a line came
	lines := 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		missing, all := false, 0
		for _, p := range proxies() {
			if err := p.readLog(); err != nil {
				w.t.Fatal(err)
			}
			for _, c := range w.cases {
				missing = missing || c.loose&noLog == 0 && len(p.recordsOf(c.marks[p])) == 0
			}
		}
		for _, p := range proxies() {
			all += len(p.records)
		}
		if all != lines {
			lines, last = all, time.Now()
		}
		if !missing || time.Since(last) > 3*time.Second {
			return
		}
	}
}

// differ reports the keys in which two outcomes differ. With go test's -failfast the
// first difference ends the test.
func (w *world) differ(name string, envoy, ours map[string]string) {
	w.t.Helper()
	if unknown := w.unknown(name, envoy, ours); len(unknown) > 0 {
		w.t.Errorf("%s/%s\n%s", w.name, name, strings.Join(unknown, "\n"))
		if failFast {
			w.t.FailNow()
		}
	}
}

// unknown is in what two outcomes differ, as far as no row of the table says so.
func (w *world) unknown(name string, envoy, ours map[string]string) (unknown []string) {
	keys := maps.Clone(envoy)
	maps.Copy(keys, ours)
	if keys["log"] != "" { // a line is missing: what would stand in it differs, too
		maps.DeleteFunc(keys, func(k, _ string) bool { return strings.HasPrefix(k, "log ") })
	}
	if envoy["tries"] != ours["tries"] { // and what tries there are on one side alone
		maps.DeleteFunc(keys, func(k, _ string) bool {
			_, e := envoy[k]
			_, o := ours[k]
			return strings.HasPrefix(k, "try ") && e != o
		})
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if envoy[key] == ours[key] {
			continue
		}
		d := difference{w.name + "/" + name, key, envoy[key], ours[key]}
		if !differences.known(d) {
			unknown = append(unknown, fmt.Sprintf("  %s: envoy %q, ours %q", key, d.envoy, d.ours))
		}
	}
	return unknown
}
